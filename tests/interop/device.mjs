// Independent Matter on/off lights (matter.js), as many as COUNT in one process.
//
// Environment: PASSCODE, DISCRIMINATOR, PORT (each light takes the next: +i), VID, PID, NAME, SERIAL, STORAGE (directory),
// IFACE (for mDNS), COUNT, MAXFABRICS, LOGLEVEL.
// DISCRIMINATORS="3840,3841" and the like sets them one by one. TEXTS='{"vendorName": "…"}' sets texts of Basic Information,
// DN the name that is announced. SLOW=milliseconds is what it takes to arm the fail-safe.
// stdout: READY {json} for each light and ALL-READY, then LIGHT, COMMISSIONED, DECOMMISSIONED, FABRICS, DONE lines.
// stdin: window N | removefabrics N | reset N | offline N | online N | toggle N | quit. Each is answered by DONE or FAILED.
import { createInterface } from "node:readline";
import { Environment, LogLevel, Logger, ServerNode, VendorId } from "@matter/main";
import { GeneralCommissioningServer } from "@matter/main/behaviors/general-commissioning";
import { OnOffLightDevice } from "@matter/main/devices/on-off-light";
import { DeviceCommissioner, FabricManager } from "@matter/main/protocol";

const e = process.env;
const number = (key, otherwise) => Number(e[key] ?? otherwise);
const say = (word, ...rest) => console.log([word, ...rest].join(" "));

// stdout belongs to the protocol above.
Logger.level = LogLevel(e.LOGLEVEL ?? "error");
Logger.destinations.default.write = text => process.stderr.write(`${text}\n`);
if (e.STORAGE) Environment.default.vars.set("storage.path", e.STORAGE);
if (e.IFACE) Environment.default.vars.set("mdns.networkInterface", e.IFACE);

const count = number("COUNT", 1);
const name = e.NAME ?? "light";
const discriminators = e.DISCRIMINATORS?.split(",").map(Number);
const lights = [];

// After 200 ms it acknowledges the question first, and then its answer acknowledges nothing.
class SlowCommissioningServer extends GeneralCommissioningServer {
  async armFailSafe(request) {
    await new Promise(resolve => setTimeout(resolve, number("SLOW", 0)));
    return super.armFailSafe(request);
  }
}
const root = e.SLOW ? ServerNode.RootEndpoint.with(SlowCommissioningServer) : ServerNode.RootEndpoint;

async function create(i) {
  const id = count === 1 ? name : `${name}${i}`;
  const node = await ServerNode.create(root, {
    id,
    network: { port: number("PORT", 5540) + i },
    commissioning: {
      passcode: number("PASSCODE", 20202021) + i,
      discriminator: discriminators?.[i] ?? number("DISCRIMINATOR", 3840) + i,
    },
    productDescription: { name: e.DN ?? id, deviceType: OnOffLightDevice.deviceType },
    basicInformation: {
      vendorName: "Interop", vendorId: VendorId(number("VID", 0xfff1)),
      productName: "Interop Light", productLabel: "Interop Light", productId: number("PID", 0x8000),
      nodeLabel: id, serialNumber: e.SERIAL ? `${e.SERIAL}${count === 1 ? "" : i}` : `SN-${id}`, uniqueId: `u-${id}`,
      ...JSON.parse(e.TEXTS ?? "{}"),
    },
    ...(e.MAXFABRICS ? { operationalCredentials: { supportedFabrics: Number(e.MAXFABRICS) } } : {}),
  });
  const light = await node.add(OnOffLightDevice, { id: "light" });
  light.events.onOff.onOff$Changed.on(on => say("LIGHT", id, `onOff=${on}`));
  node.lifecycle.commissioned.on(() => say("COMMISSIONED", id));
  node.lifecycle.decommissioned.on(() => say("DECOMMISSIONED", id));
  node.events.commissioning.fabricsChanged.on(() => say("FABRICS", id, node.env.get(FabricManager).fabrics.length));
  return { i, id, node, light };
}

for (let i = 0; i < count; i++) lights.push(await create(i));

const ready = ({ id, node }) => {
  const { passcode, discriminator, pairingCodes, commissioned } = node.state.commissioning;
  const { qrPairingCode: qr, manualPairingCode: manual } = pairingCodes;
  const port = node.state.network.port;
  say("READY", JSON.stringify({ id, qr, manual, passcode, discriminator, port, commissioned }));
};
await Promise.all(lights.map(({ node }) => node.start()));
lights.forEach(ready);
say("ALL-READY");

const commands = {
  window: ({ node }) => node.env.get(DeviceCommissioner).allowBasicCommissioning(),
  removefabrics: async ({ node }) => {
    for (const fabric of [...node.env.get(FabricManager).fabrics]) await fabric.leave();
  },
  // What a device does when its last fabric goes: back to factory settings, under a new instance name.
  reset: ({ node }) => node.erase(),
  offline: ({ node }) => node.close(),
  online: async ({ i }) => {
    lights[i] = await create(i);
    await lights[i].node.start();
  },
  toggle: ({ light }) => light.set({ onOff: { onOff: !light.state.onOff.onOff } }),
};

const quit = async () => {
  await Promise.allSettled(lights.map(({ node }) => node.close()));
  process.exit(0);
};

const input = createInterface({ input: process.stdin });
input.on("line", async line => {
  const [word, index] = line.trim().split(/\s+/);
  if (word === "quit") return quit();
  try {
    await commands[word](lights[Number(index ?? 0)]);
    say("DONE", line.trim());
  } catch (error) {
    say("FAILED", line.trim(), String(error).replaceAll("\n", " "));
  }
});
input.on("close", quit);
