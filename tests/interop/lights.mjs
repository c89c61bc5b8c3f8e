// Matter on/off lights (matter.js) in one process, reachable on loopback. Arguments: storage directory, then for each
// light `port:discriminator:passcode`. Prints one READY line for each light, as JSON.
import { Environment, Logger, LogLevel, ServerNode, VendorId } from "@matter/main";
import { OnOffLightDevice } from "@matter/main/devices/on-off-light";

const [storage, ...lights] = process.argv.slice(2);
Logger.level = LogLevel(process.env.LOGLEVEL ?? "error");
Environment.default.vars.set("storage.path", storage);
Environment.default.vars.set("mdns.networkInterface", "lo");
for (const light of lights) {
    const [port, discriminator, passcode] = light.split(":").map(Number);
    const id = `light-${port}`;
    const node = await ServerNode.create({
        id,
        network: { port },
        commissioning: { passcode, discriminator },
        productDescription: { name: "Light", deviceType: OnOffLightDevice.deviceType },
        basicInformation: {
            vendorName: "Vendor", vendorId: VendorId(0xfff1), productName: "Light", productLabel: "Light",
            nodeLabel: id, productId: 0x8000, serialNumber: `SN-${port}`, uniqueId: `u-${port}`,
        },
    });
    await node.add(OnOffLightDevice, { id: "light" });
    await node.start();
    const { qrPairingCode } = node.state.commissioning.pairingCodes;
    console.log(`READY ${JSON.stringify({ port, qr: qrPairingCode })}`);
}
// The test closes standard input when it ends, however it ends.
process.stdin.on("close", () => process.exit(0)).resume();
