// Independent Matter light (matter.js) that is only on Bluetooth until somebody brings it onto a network. It advertises by HCI's
// user channel, so its controller must be down and nobody else's.
//
// Environment: HCI (number of the controller), PASSCODE, DISCRIMINATOR, STORAGE (directory), NET=wifi|thread, CONNECT_S (how long
// it takes before it joins), JOINS (the interface that `join` brings up), ONE_RADIO=1 (drops Bluetooth at ConnectNetwork, and says
// before that it will).
// stdout: a line for each thing that a person would like to know, with Unix time. READY and the setup code in QR form come first,
// ADVERTISING when it can be found.
import { execFile } from "node:child_process";
import { createRequire, flushCompileCache } from "node:module";
import { promisify } from "node:util";
import { Bytes, DeviceTypeId, Endpoint, Environment, Logger, ServerNode, VendorId, singleton } from "@matter/main";
import { GeneralCommissioningBehavior } from "@matter/main/behaviors/general-commissioning";
import { NetworkCommissioningBehavior } from "@matter/main/behaviors/network-commissioning";
import { NetworkCommissioning } from "@matter/main/clusters/network-commissioning";
import { OnOffLightDevice } from "@matter/main/devices";
import { Ble, DeviceAdvertiser, DeviceCommissioner } from "@matter/main/protocol";
import { NodeJsBle } from "@matter/nodejs-ble";

const e = process.env;
const say = (...words) => console.log((Date.now() / 1000).toFixed(3), ...words);
const sleep = seconds => new Promise(resolve => setTimeout(resolve, seconds * 1000));
const text = bytes => Buffer.from(bytes).toString();

const environment = Environment.default;
Logger.level = e.LOGLEVEL ?? "notice";
environment.vars.set("storage.path", e.STORAGE ?? "/run/light");
environment.vars.set("storage.clear", true);
const hci = e.HCI ?? "1";
Ble.get = singleton(() => new NodeJsBle({ environment, hciId: Number(hci) }));
// The same instance that matter.js advertises by; it reads these when it is loaded.
Object.assign(e, { HCI_CHANNEL_USER: "1", BLENO_HCI_DEVICE_ID: hci });
const bleno = createRequire(import.meta.url)("@stoprocent/bleno");
bleno.on("advertisingStart", error => say(error ? `NOT-ADVERTISING ${error}` : "ADVERTISING"));
bleno.on("accept", address => say("CONNECTED", address));
// matter.js closes its Bluetooth for good with its first connection. A device in its box has to be found again: it starts anew.
const { stop } = bleno;
let isBoxed = true;
bleno.stop = () => {
  say("DISCONNECTED");
  stop.call(bleno);
  if (isBoxed) process.exit(1);
};

const Status = NetworkCommissioning.NetworkCommissioningStatus;
const isWifi = (e.NET ?? "wifi") === "wifi";
const security = { unencrypted: false, wep: false, wpaPersonal: false, wpa2Personal: true, wpa3Personal: false };
const thread = { panId: 0x1234, networkName: "VMTHREAD", channel: 15, version: 4, rssi: -40, lqi: 200,
  extendedPanId: 0x1122334455667788n, extendedAddress: Bytes.fromHex("0011223344556677") };

// The dataset's TLV of the extended PAN id.
function extendedPanId(dataset) {
  for (let i = 0; i < dataset.length; i += 2 + dataset[i + 1]) {
    if (dataset[i] === 2) return dataset.slice(i + 2, i + 2 + dataset[i + 1]);
  }
  return new Uint8Array(8);
}

let credentials = {};

// Joins; answers the status, and what it has to say of it.
async function join() {
  await sleep(Number(e.CONNECT_S ?? 0));
  try {
    const { stdout } = await promisify(execFile)("/opt/light/join", { env: { ...e, ...credentials } });
    return [Status.Success, stdout.trim()];
  } catch (error) {
    return [error.code === 2 ? Status.AuthFailure : Status.OtherConnectionFailure, String(error.stdout).trim()];
  }
}

class Networks extends NetworkCommissioningBehavior.with(isWifi ? "WiFiNetworkInterface" : "ThreadNetworkInterface") {
  #crumb(breadcrumb) {
    if (breadcrumb !== undefined) this.agent.get(GeneralCommissioningBehavior).state.breadcrumb = breadcrumb;
  }

  #armed() {
    this.env.get(DeviceCommissioner).assertFailsafeArmed("fail-safe must be armed");
  }

  async scanNetworks({ ssid, breadcrumb }) {
    say("ScanNetworks", ssid ? text(ssid) : "");
    await sleep(1);
    this.#crumb(breadcrumb);
    this.state.lastNetworkingStatus = Status.Success;
    const wifi = { security, ssid: ssid ?? Bytes.fromString("VMLAB"), bssid: Bytes.fromHex("020000000000"), channel: 1 };
    return { networkingStatus: Status.Success, ...(isWifi ? { wiFiScanResults: [wifi] } : { threadScanResults: [thread] }) };
  }

  #added(networkId, breadcrumb) {
    this.#armed();
    this.#crumb(breadcrumb);
    this.state.lastNetworkingStatus = Status.Success;
    this.state.lastNetworkId = networkId;
    this.state.networks = [{ networkId, connected: false }];
    return { networkingStatus: Status.Success, networkIndex: 0 };
  }

  addOrUpdateWiFiNetwork({ ssid, credentials: psk, breadcrumb }) {
    credentials = { SSID: text(ssid), PSK: text(psk) };
    say("AddOrUpdateWiFiNetwork", credentials.SSID, "with a password of", credentials.PSK.length);
    return this.#added(ssid, breadcrumb);
  }

  addOrUpdateThreadNetwork({ operationalDataset, breadcrumb }) {
    const id = extendedPanId(operationalDataset);
    say("AddOrUpdateThreadNetwork", operationalDataset.length, "bytes, extended PAN id", Buffer.from(id).toString("hex"));
    return this.#added(id, breadcrumb);
  }

  removeNetwork({ breadcrumb }) {
    this.#crumb(breadcrumb);
    this.state.networks = [];
    return { networkingStatus: Status.Success, networkIndex: 0 };
  }

  reorderNetwork({ breadcrumb }) {
    this.#crumb(breadcrumb);
    return { networkingStatus: Status.Success, networkIndex: 0 };
  }

  async connectNetwork({ networkId, breadcrumb }) {
    say("ConnectNetwork", Buffer.from(networkId).toString("hex"));
    this.#armed();
    isBoxed = false;
    if (e.ONE_RADIO) bleno.disconnect();
    const [networkingStatus, how] = await join();
    const failed = networkingStatus !== Status.Success;
    this.state.lastNetworkingStatus = networkingStatus;
    this.state.lastNetworkId = networkId;
    this.state.lastConnectErrorValue = failed ? 1 : null;
    if (failed) {
      say("NOT-JOINED", how);
      return { networkingStatus, debugText: how, errorValue: 1 };
    }
    this.#crumb(breadcrumb);
    this.state.networks = [{ networkId, connected: true }];
    say("JOINED", how);
    this.env.get(DeviceAdvertiser).advertise().catch(error => say("advertise", error.message));
    return { networkingStatus, errorValue: null };
  }
}

const server = await ServerNode.create(ServerNode.RootEndpoint, {
  id: "light",
  network: { port: 5540, discoveryCapabilities: { onIpNetwork: false, ble: true }, ble: true },
  commissioning: { passcode: Number(e.PASSCODE ?? 20202021), discriminator: Number(e.DISCRIMINATOR ?? 3840) },
  generalCommissioning: { supportsConcurrentConnection: !e.ONE_RADIO },
  productDescription: { name: "boxed light", deviceType: DeviceTypeId(OnOffLightDevice.deviceType) },
  basicInformation: {
    vendorName: "matter.js", vendorId: VendorId(0xfff1), productName: "boxed light", productLabel: "boxed light",
    productId: 0x8000, nodeLabel: "", serialNumber: "BOXED1", uniqueId: "boxed1",
  },
});
server.behaviors.require(Networks, {
  maxNetworks: 1, interfaceEnabled: true, networks: [], scanMaxTimeSeconds: 10, connectMaxTimeSeconds: 60,
  lastConnectErrorValue: null, lastNetworkId: null, lastNetworkingStatus: null,
  ...(isWifi
    ? { supportedWiFiBands: [NetworkCommissioning.WiFiBand["2G4"]] }
    : { supportedThreadFeatures: { isFullThreadDevice: true }, threadVersion: 4 }),
});
await server.add(new Endpoint(OnOffLightDevice, { id: "onoff" }));
server.lifecycle.commissioned.on(() => say("COMMISSIONED"));
say("READY", server.state.commissioning.pairingCodes?.qrPairingCode);
await server.start();
// The machine is slow, and whoever ends this process does not wait for it to leave anything behind.
flushCompileCache();
