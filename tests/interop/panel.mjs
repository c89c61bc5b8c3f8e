// An independent controller (matter.js) that holds a certificate of the hub's fabric:
//   node panel.mjs key KEY                          makes a key, keeps it in KEY, prints its request (base64 DER)
//   node panel.mjs run KEY BUNDLE NODE [toggle|onoff|acl]…   does that to a node, one line for each: NAME {"ok":…} or {"status":…}
//
// Environment: STORAGE (directory), IFACE (for mDNS).
import { readFileSync, writeFileSync } from "node:fs";
import { Bytes, Crypto, Environment, LogLevel, Logger, PrivateKey, Seconds, ServerNode } from "@matter/main";
import { ControllerBehavior } from "@matter/main/node";
import { AccessControl, OnOff } from "@matter/main/clusters";
import { Certificate, FabricBuilder, FabricManager, Invoke, Read } from "@matter/main/protocol";
import { FabricIndex, NodeId, VendorId } from "@matter/main/types";

const e = process.env;
Logger.level = LogLevel(e.LOGLEVEL ?? "error");
Logger.destinations.default.write = text => process.stderr.write(`${text}\n`);
const environment = Environment.default;
if (e.STORAGE) environment.vars.set("storage.path", e.STORAGE);
if (e.IFACE) environment.vars.set("mdns.networkInterface", e.IFACE);
const crypto = environment.get(Crypto);
const base64 = text => new Uint8Array(Buffer.from(text, "base64"));
const [, , what, keyFile, bundleFile, nodeId, ...deeds] = process.argv;

if (what === "key") {
  const key = await crypto.createKeyPair();
  writeFileSync(keyFile, JSON.stringify(key.keyPair, (_, it) => (it instanceof Uint8Array ? Bytes.toHex(it) : it)));
  const request = await Certificate.createCertificateSigningRequest(crypto, key);
  console.log(Buffer.from(request).toString("base64"));
  process.exit(0);
}

const kept = JSON.parse(readFileSync(keyFile, "utf8"));
const key = PrivateKey(Bytes.fromHex(kept.privateKey), { publicKey: Bytes.fromHex(kept.publicKey) });
const bundle = JSON.parse(readFileSync(bundleFile, "utf8"));
const node = await ServerNode.create(ServerNode.RootEndpoint.with(ControllerBehavior), {
  id: "panel",
  network: { port: 0 },
  controller: { adminFabricLabel: "panel", ble: false },
  commissioning: { enabled: false },
});
await node.start();
const builder = new FabricBuilder(crypto, key);
await builder.setRootCert(base64(bundle.rcac.tlv));
await builder.setOperationalCert(base64(bundle.noc.tlv), base64(bundle.icac.tlv));
builder
  .setIdentityProtectionKey(base64(bundle.ipk))
  .setRootVendorId(VendorId(bundle.admin_vendor_id))
  .setRootNodeId(NodeId(bundle.hub_node_id))
  .setLabel("panel");
const fabric = await builder.build(FabricIndex(1));
node.env.get(FabricManager).addFabric(fabric);
const peer = await node.peers.forAddress(fabric.addressOf(NodeId(Number(nodeId))));

const read = async (endpoint, cluster, attribute) => {
  for await (const chunk of peer.interaction.read(Read(Read.Attribute({ endpoint, cluster, attributes: attribute })))) {
    for (const report of chunk) {
      return report.kind === "attr-value" ? { ok: report.value } : { status: report.status };
    }
  }
  return { status: "nothing" };
};
const acts = {
  toggle: async () => {
    const request = Invoke(Invoke.ConcreteCommandRequest({ endpoint: 1, cluster: OnOff.Complete, command: "toggle" }));
    for await (const chunk of peer.interaction.invoke(request)) {
      for (const answer of chunk) return answer.status ? { status: answer.status } : { ok: true };
    }
    return { ok: true };
  },
  onoff: () => read(1, OnOff.Complete, "onOff"),
  acl: () => read(0, AccessControl.Complete, "acl"),
};
for (const deed of deeds) {
  let result;
  try {
    result = await Promise.race([acts[deed](), new Promise((_, no) => setTimeout(no, 20000, new Error("no answer")))]);
  } catch (error) {
    result = { error: `${error.constructor.name}: ${error.message}`, status: error.code };
  }
  console.log(deed, JSON.stringify(result, (_, it) => (typeof it === "bigint" ? Number(it) : it)));
}
process.exit(0);
