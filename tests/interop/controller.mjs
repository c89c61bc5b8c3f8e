// An independent Matter controller (matter.js) that joins a shared device: node controller.mjs MANUAL-CODE [EVICT]
//
// Environment: STORAGE (directory), IFACE (for mDNS). Commissions the device of the code onto a fabric of its own, toggles
// the light, and prints one line: JOINED {"fabrics":…,"onOff":…}, or FAILED and why, with exit code 1. Where EVICT is given it says
// ABOARD before that, waits for a line on stdin, and removes the fabric with that index.
import { once } from "node:events";
import { Environment, LogLevel, Logger, Seconds } from "@matter/main";
import { OnOff, OperationalCredentials } from "@matter/main/clusters";
import { FabricIndex, ManualPairingCodeCodec } from "@matter/main/types";
import { CommissioningController } from "@project-chip/matter.js";

const e = process.env;
Logger.level = LogLevel(e.LOGLEVEL ?? "error");
Logger.destinations.default.write = text => process.stderr.write(`${text}\n`);
const environment = Environment.default;
if (e.STORAGE) environment.vars.set("storage.path", e.STORAGE);
if (e.IFACE) environment.vars.set("mdns.networkInterface", e.IFACE);

const code = ManualPairingCodeCodec.decode(process.argv[2]);
const controller = new CommissioningController({
  environment: { environment, id: "second" },
  autoConnect: false,
  adminFabricLabel: "second commissioner",
});
try {
  await controller.start();
  const id = await controller.commissionNode({
    commissioning: { regulatoryLocation: 0, regulatoryCountryCode: "XX" },
    discovery: {
      identifierData: { shortDiscriminator: code.shortDiscriminator },
      discoveryCapabilities: { onIpNetwork: true },
      timeout: Seconds(30),
    },
    passcode: code.passcode,
  });
  const node = await controller.getNode(id);
  node.connect();
  if (!node.initialized) await node.events.initialized;
  const credentials = node.getRootClusterClient(OperationalCredentials.Complete);
  const light = node.getDevices()[0].getClusterClient(OnOff.Complete);
  await light.commands.toggle();
  const evict = process.argv[3];
  if (evict) {
    console.log("ABOARD");
    await once(process.stdin, "data");
    await credentials.commands.removeFabric({ fabricIndex: FabricIndex(Number(evict)) });
  }
  const fabrics = await credentials.attributes.commissionedFabrics.get(true);
  const onOff = await light.attributes.onOff.get(true);
  console.log("JOINED", JSON.stringify({ fabrics, onOff }));
  await controller.close();
  process.exit(0);
} catch (error) {
  console.log("FAILED", `${error.constructor.name}: ${error.message}`);
  process.exit(1);
}
