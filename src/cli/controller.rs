//! `matterbind controller …`

use std::path::{Path, PathBuf};
use std::time::Duration;

use der::EncodePem;
use der::pem::LineEnding;
use jiff::Timestamp;
use p256::ecdsa::SigningKey;
use p256::elliptic_curve::Generate;
use p256::pkcs8::EncodePrivateKey;
use zeroize::Zeroizing;

use super::client::{PLAIN, SLOW};
use super::exit::{CliError, ExitCode};
use super::output::{self, Paint, Tone, local, or_dash};
use super::private_file::PrivateFile;
use super::{Global, access, block_on, nodes};
use crate::admin::wire::{
    ControllerBundle, ControllerOrder, ControllerRemoval, ControllerView, Controllers, Invitation, InviteOrder,
    RemoveOrder, RenewOrder,
};
use crate::backup::{self, Lock, Recipient};
use crate::controller::ControllerState;
use crate::controller::csr::{self, CSR_MAX};
use crate::node::NodeId;
use crate::secret::OperatorSecret;

const EXAMPLES: &str = "\
Examples:
  matterbind controller add 'Wall panel' --csr panel.csr --cat 0x0002
  matterbind controller add bridge --new-key --cat 0x0002 --recipient age1…
  matterbind controller invite --cat 0x0002 --for 10m
  matterbind controller renew 'Wall panel' --csr panel2.csr
  matterbind controller remove 'Wall panel'          says who renews first; again, once they have
  matterbind controller remove 'Lost phone' --now    the others renew afterwards

docs/controllers.md says what a bundle holds and how a controller uses it.";

/// `controller`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ControllerArgs {
    /// Print one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub action: ControllerCommand,
}

/// `controller …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ControllerCommand {
    /// Give a controller a certificate of our fabric with tags
    Add(AddArgs),
    /// List controllers and open invitations
    List {
        /// Those that were removed as well
        #[arg(long)]
        all: bool,
    },
    /// Show how one controller stands
    Show {
        /// The controller, by node id or name
        controller: String,
    },
    /// Give a controller another certificate, with the versions that are issued now
    Renew(RenewArgs),
    /// Shut a controller out of every node
    Remove {
        /// The controller, by node id or name
        controller: String,
        /// Do not wait until the others of its tags have renewed: they are shut out until they do
        #[arg(long)]
        now: bool,
    },
    /// Print a code and a QR by which one app enrols over the network
    Invite(InviteArgs),
    /// Take an invitation back
    Withdraw {
        /// The first part of its code
        invite: String,
    },
}

/// Where the key comes from
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct KeyArgs {
    /// The controller's certificate request (PKCS#10, P-256), PEM or DER; - reads stdin
    #[arg(long, value_name = "FILE")]
    pub csr: Option<PathBuf>,
    /// Make key and request here, for tools that cannot; the bundle holds the private key then
    #[arg(long)]
    pub new_key: bool,
}

/// Where the bundle goes
#[derive(Debug, clap::Args)]
pub(crate) struct BundleArgs {
    /// How long the certificate is valid [default: 365d]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub valid: Option<Duration>,
    /// The bundle's file, made with mode 0600; - prints it [default: NAME.controller.json]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace the file, whatever it is; that controller's own bundle is replaced without it, where it is not encrypted
    #[arg(long)]
    pub replace: bool,
    /// Encrypt the bundle to an age recipient
    #[arg(long, value_name = "age1…")]
    pub recipient: Option<String>,
}

/// `controller add`
#[derive(Debug, clap::Args)]
pub(crate) struct AddArgs {
    /// How people call it
    pub name: String,
    /// Its key.
    #[command(flatten)]
    pub key: KeyArgs,
    /// A tag that it gets, by its identifier; three at most
    #[arg(long, value_name = "CAT", value_parser = access::identifier)]
    pub cat: Vec<u16>,
    /// Give it this hub's own tag: it may do everything, and change who may do what
    #[arg(long)]
    pub admin: bool,
    /// Its bundle.
    #[command(flatten)]
    pub bundle: BundleArgs,
}

/// `controller renew`
#[derive(Debug, clap::Args)]
pub(crate) struct RenewArgs {
    /// The controller, by node id or name
    pub controller: String,
    /// Its new key.
    #[command(flatten)]
    pub key: KeyArgs,
    /// Its bundle.
    #[command(flatten)]
    pub bundle: BundleArgs,
}

/// `controller invite`
#[derive(Debug, clap::Args)]
pub(crate) struct InviteArgs {
    /// A tag that the app gets, by its identifier; three at most
    #[arg(long, value_name = "CAT", value_parser = access::identifier, required = true)]
    pub cat: Vec<u16>,
    /// How long the code is good, 1 min to 1 day
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10m")]
    pub good_for: Duration,
    /// How people call the controller; else as the app says
    #[arg(long)]
    pub name: Option<String>,
    /// How long its certificate is valid [default: 365d]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub valid: Option<Duration>,
}

pub(super) fn run(global: &Global, args: ControllerArgs) -> Result<ExitCode, CliError> {
    let client = global.client()?;
    let paint = Paint::stdout(global.color);
    match args.action {
        ControllerCommand::Add(add) => {
            // Looked at first: a certificate that cannot be delivered is of no use, and a key that is made here is nowhere else.
            let place = Place::of(&add.bundle, &add.name)?;
            // The same request again is answered by the same certificate, for the same file.
            let again = |held: &Held| add.key.csr.is_some() && held.name == add.name && !held.has_key;
            place.check(again)?;
            let key = Key::of(&add.key)?;
            let (name, cats, admin, valid_s) = (add.name.clone(), add.cat, add.admin, seconds(add.bundle.valid));
            let order = ControllerOrder { name, csr: key.csr, cats, admin, valid_s };
            let bundle = bundle(block_on(client.post_bytes(&["controllers"], &order, PLAIN))?)?;
            deliver(bundle, key.secret, &place, args.json)
        }
        ControllerCommand::Renew(renew) => {
            // It may be called by its node id, and its file is called by its name.
            let its: ControllerView = block_on(client.get(&["controllers", &renew.controller], &(), PLAIN))?;
            let place = Place::of(&renew.bundle, &its.name)?;
            place.check(|held| held.node_id == its.node_id)?;
            let key = Key::of(&renew.key)?;
            let order = RenewOrder { csr: key.csr, valid_s: seconds(renew.bundle.valid) };
            let path = ["controllers", &renew.controller, "renew"];
            let bundle = bundle(block_on(client.post_bytes(&path, &order, PLAIN))?)?;
            deliver(bundle, key.secret, &place, args.json)
        }
        ControllerCommand::List { all } => {
            let found: Controllers = block_on(client.get(&["controllers"], &(), PLAIN))?;
            print(args.json, &found, |found| list_text(found, all))
        }
        ControllerCommand::Show { controller } => {
            let found: ControllerView = block_on(client.get(&["controllers", &controller], &(), PLAIN))?;
            print(args.json, &found, show_text)
        }
        ControllerCommand::Remove { controller, now } => {
            let path = ["controllers", &controller, "remove"];
            let removal: ControllerRemoval = block_on(client.post(&path, &RemoveOrder { now }, SLOW))?;
            print(args.json, &removal, |removal| removal_text(removal, paint))?;
            Ok(if removal.complete { ExitCode::Done } else { ExitCode::Pending })
        }
        ControllerCommand::Invite(invite) => {
            let InviteArgs { cat: cats, good_for, name, valid } = invite;
            let order = InviteOrder { cats, name, for_s: good_for.as_secs(), valid_s: seconds(valid) };
            let invitation: Invitation = block_on(client.post(&["invites"], &order, PLAIN))?;
            print(args.json, &invitation, |invitation| invitation_text(invitation, paint))
        }
        ControllerCommand::Withdraw { invite } => {
            let left: Controllers = block_on(client.delete(&["invites", &invite]))?;
            print(args.json, &left, |_| format!("Invitation {invite} is taken back."))
        }
    }
}

fn print<T: serde::Serialize>(json: bool, answer: &T, text: impl FnOnce(&T) -> String) -> Result<ExitCode, CliError> {
    if json {
        output::json(answer)?;
    } else {
        output::line(&text(answer))?;
    }
    Ok(ExitCode::Done)
}

fn seconds(time: Option<Duration>) -> Option<u64> {
    time.map(|time| time.as_secs())
}

/// A request, and the private key where it was made here.
struct Key {
    csr: String,
    secret: Option<OperatorSecret>,
}

impl Key {
    fn of(args: &KeyArgs) -> Result<Self, CliError> {
        match &args.csr {
            Some(file) => Ok(Self { csr: read_csr(file)?, secret: None }),
            None => Self::make().map_err(CliError::Other),
        }
    }

    fn make() -> anyhow::Result<Self> {
        let secret = p256::SecretKey::generate_from_rng(&mut rand::rng());
        let request = csr::request(&SigningKey::from(&secret))?;
        let pem = secret.to_pkcs8_pem(LineEnding::LF)?;
        Ok(Self { csr: request.to_pem(LineEnding::LF)?, secret: Some(OperatorSecret::new(pem.as_str())) })
    }
}

fn read_csr(file: &Path) -> Result<String, CliError> {
    use base64::Engine as _;
    use std::io::Read as _;
    let failed = |source| CliError::File { what: format!("reading {}", file.display()), source };
    let from: Box<dyn std::io::Read> = match file.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(file).map_err(failed)?),
    };
    let mut bytes = Vec::new();
    from.take(CSR_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    Ok(match String::from_utf8(bytes) {
        Ok(text) if text.trim_start().starts_with("-----BEGIN ") => text,
        Ok(text) => base64::engine::general_purpose::STANDARD.encode(text),
        Err(error) => base64::engine::general_purpose::STANDARD.encode(error.into_bytes()),
    })
}

/// Where a bundle goes.
struct Place {
    path: PathBuf,
    replace: bool,
    recipient: Option<Recipient>,
}

/// What a bundle that lies in the file says of itself.
struct Held {
    name: String,
    node_id: NodeId,
    has_key: bool,
}

impl Place {
    fn of(args: &BundleArgs, name: &str) -> Result<Self, CliError> {
        let read =
            |text: &String| text.parse().map_err(|why| CliError::Usage(format!("{text} is no age recipient: {why}")));
        let recipient: Option<Recipient> = args.recipient.as_ref().map(read).transpose()?;
        let path = args.out.clone().unwrap_or_else(|| default_file(name, recipient.is_some()));
        Ok(Self { path, replace: args.replace, recipient })
    }

    /// The bundle that is there; none where it is encrypted, or anything else.
    fn held(&self) -> Option<Held> {
        // Nothing is read from a pipe: it is no bundle that lies there.
        let bytes = self.path.is_file().then(|| std::fs::read(&self.path).ok()).flatten().map(Zeroizing::new)?;
        let bundle: ControllerBundle = serde_json::from_slice(&bytes).ok()?;
        Some(Held { has_key: bundle.private_key.is_some(), name: bundle.name, node_id: bundle.node_id })
    }

    /// Looks whether it can be written there, over whatever is there only if that may go.
    fn check(&self, may_go: impl Fn(&Held) -> bool) -> Result<PrivateFile, CliError> {
        PrivateFile::at(&self.path, self.replace || self.held().is_some_and(|held| may_go(&held)))
    }
}

/// As the daemon sent it: a certificate has line breaks, which no answer for a terminal keeps.
fn bundle(answer: Vec<u8>) -> Result<ControllerBundle, CliError> {
    let answer = Zeroizing::new(answer);
    serde_json::from_slice(&answer).map_err(|error| CliError::Answer(format!("cannot be understood: {error}")))
}

/// Writes the bundle where only its owner reads it.
fn deliver(
    mut bundle: ControllerBundle,
    key: Option<OperatorSecret>,
    place: &Place,
    json: bool,
) -> Result<ExitCode, CliError> {
    bundle.private_key = key;
    let text = serde_json::to_vec_pretty(&bundle).map(Zeroizing::new).map_err(anyhow::Error::new)?;
    let encrypted = place.recipient.is_some();
    let bytes = match place.recipient.clone() {
        Some(recipient) => {
            Zeroizing::new(backup::encrypt(&text, &Lock::Recipient(recipient)).map_err(anyhow::Error::new)?)
        }
        None => text,
    };
    let file = place.check(|held| held.node_id == bundle.node_id)?;
    file.write(&bytes)?;
    if file.is_stdout() {
        return Ok(ExitCode::Done);
    }
    if json {
        output::json(&serde_json::json!({
            "name": bundle.name,
            "node_id": bundle.node_id,
            "cats": bundle.cats,
            "issued_at": bundle.issued_at,
            "expires_at": bundle.expires_at,
            "file": place.path,
            "encrypted": encrypted,
            "notes": bundle.notes,
        }))?;
        return Ok(ExitCode::Done);
    }
    let end = bundle.expires_at.map_or_else(|| "without an end".to_owned(), |end| format!("until {}", local(end)));
    let secret = if encrypted { "encrypted" } else { "a secret: mode 0600" };
    let mut lines = vec![
        format!("Controller {} ({}) has {}, valid {end}.", bundle.node_id, bundle.name, cats(&bundle.cats)),
        format!("Its bundle is in {} ({secret}).", place.path.display()),
    ];
    lines.extend(bundle.notes);
    output::line(&lines.join("\n"))?;
    Ok(ExitCode::Done)
}

fn default_file(name: &str, encrypted: bool) -> PathBuf {
    let plain = name.chars().map(|c| if c.is_alphanumeric() || matches!(c, '-' | '_') { c } else { '-' });
    let plain: String = plain.collect();
    PathBuf::from(format!("{plain}.controller.json{}", if encrypted { ".age" } else { "" }))
}

fn cats(cats: &[u32]) -> String {
    match cats {
        [] => "no tag".to_owned(),
        cats => cats.iter().map(|cat| format!("{cat:#010x}")).collect::<Vec<_>>().join(", "),
    }
}

fn list_text(found: &Controllers, all: bool) -> String {
    let mut table = output::table(&["id", "name", "state", "certificate", "tags", "until"]);
    for controller in found.controllers.iter().filter(|it| all || it.state != ControllerState::Removed) {
        table.add_row([
            controller.node_id.to_string(),
            controller.name.clone(),
            crate::admin::wire_word(&controller.state),
            controller.certificate.clone(),
            cats(&controller.cats),
            or_dash(controller.expires_at.map(local)),
        ]);
    }
    let mut text = match table.is_empty() {
        true => "No other controllers.".to_owned(),
        false => output::table_text(&table),
    };
    for invite in &found.invites {
        let tags: Vec<String> = invite.cats.iter().map(|cat| format!("{cat:#06x}")).collect();
        text.push_str(&format!(
            "\nInvitation {}-… for {} is open until {}, {} tries left.",
            invite.id,
            tags.join(", "),
            local(invite.expires_at),
            invite.tries_left
        ));
    }
    text
}

fn show_text(it: &ControllerView) -> String {
    let mut rows = vec![
        ("name", it.name.clone()),
        ("node id", it.node_id.to_string()),
        ("state", crate::admin::wire_word(&it.state)),
        ("certificate", it.certificate.clone()),
        ("tags", cats(&it.cats)),
        ("enrolled", local(it.enrolled_at)),
        ("issued", local(it.issued_at)),
        ("until", or_dash(it.expires_at.map(local))),
        ("key (SHA-256)", it.key.clone()),
    ];
    if !it.waits_for.is_empty() {
        rows.push(("waits for", names(&it.waits_for)));
    }
    if let Some(at) = it.settles_at {
        rows.push(("shut out", format!("by itself {}, or when `controller remove` is said again", local(at))));
    }
    if !it.pending_nodes.is_empty() {
        let nodes: Vec<String> = it.pending_nodes.iter().map(ToString::to_string).collect();
        rows.push(("not told yet", nodes.join(", ")));
    }
    rows.iter().map(|(key, value)| format!("{key:14} {value}")).collect::<Vec<_>>().join("\n")
}

fn names(names: &[crate::admin::wire::ControllerName]) -> String {
    names.iter().map(|it| format!("{} ({})", it.node_id, it.name)).collect::<Vec<_>>().join(", ")
}

fn removal_text(removal: &ControllerRemoval, paint: Paint) -> String {
    let (node, name) = (removal.node_id, &removal.name);
    let mut lines = vec![match (removal.state, removal.complete) {
        (ControllerState::Removed, true) => {
            format!("{} controller {node} ({name}): no node lets it in.", paint.tone(Tone::Good, "Removed"))
        }
        (ControllerState::Removed, false) => {
            format!("{} controller {node} ({name}).", paint.tone(Tone::Warn, "Removed, but not from every node yet:"))
        }
        (ControllerState::Enrolled | ControllerState::Leaving, _) => {
            format!("{} controller {node} ({name}).", paint.tone(Tone::Warn, "Not yet removed:"))
        }
    }];
    if !removal.renew.is_empty() {
        lines.push(format!("To be renewed: {}.", names(&removal.renew)));
    }
    if !removal.rotated.is_empty() {
        lines.push(format!("Nodes ask for {} now.", cats(&removal.rotated)));
    }
    for node in removal.nodes.iter().filter(|node| !node.message.is_empty()) {
        lines.push(format!("  node {}: {}: {}", node.node_id, node.outcome, node.message));
    }
    if !removal.message.is_empty() {
        lines.push(removal.message.clone());
    }
    lines.join("\n")
}

fn invitation_text(invitation: &Invitation, paint: Paint) -> String {
    let picture = nodes::picture(invitation.qr_payload.expose(), paint);
    format!(
        "{picture}Code         {}\nPost to      {}\nCertificate  SHA-256 {}\nOne app may use it until {}.",
        invitation.code.expose(),
        invitation.urls.join(" or "),
        invitation.certificate_sha256,
        local(invitation.expires_at)
    )
}

/// Named in `status` and wherever else ends are listed.
pub(super) fn ends(name: &str, end: Timestamp, now: Timestamp) -> String {
    let word = if end <= now { "ran out" } else { "runs out" };
    format!("{name} {word} {}", local(end))
}
