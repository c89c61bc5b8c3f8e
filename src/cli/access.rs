//! `matterbind access …`

use super::client::{AdminClient, PLAIN, SLOW};
use super::exit::{CliError, ExitCode};
use super::output::{self, or_dash};
use super::{Global, block_on};
use crate::admin::wire::{AccessAction, AccessReport, AccessView, NodeRef};
use crate::fabric::{Cat, CatGrant, Privilege};
use crate::node::number;

const EXAMPLES: &str = "\
Examples:
  matterbind access show
  matterbind access set lamp --grant 0x0002_0001=Operate    only these, on this node
  matterbind access set --default                           all nodes as configured
  matterbind access apply                                   after the configuration was changed
  matterbind access rotate 0x0002_0001                      controllers with the old version are refused from now on";

/// `access`
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct AccessArgs {
    /// Print one JSON document
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub action: AccessCommand,
}

/// `access …`
#[derive(Debug, clap::Subcommand)]
pub(crate) enum AccessCommand {
    /// Show who may do what, in force and on the nodes
    Show {
        /// Only this node, by id or name
        node: Option<String>,
    },
    /// Set the grants of one node, or of all, and write them
    Set {
        /// The node, by id or name; without it: all
        node: Option<String>,
        /// A tag, whole or its identifier alone, and what it may do: View, Operate or Administer; may be repeated
        #[arg(long, value_name = "CAT=PRIVILEGE", value_parser = grant, required_unless_present_any = ["default", "none"])]
        grant: Vec<Wanted>,
        /// Back to the grants for all nodes, or to the configuration's
        #[arg(long, conflicts_with = "grant")]
        default: bool,
        /// No grants at all: only this hub
        #[arg(long, conflicts_with_all = ["grant", "default"])]
        none: bool,
    },
    /// Write what is in force to one node, or to all
    Apply {
        /// The node, by id or name; without it: all
        node: Option<String>,
    },
    /// Raise the version of a tag, and write it to every node
    Rotate {
        /// The tag, in any version, or its identifier
        #[arg(value_parser = identifier)]
        cat: u16,
    },
}

pub(super) fn run(global: &Global, args: AccessArgs) -> Result<ExitCode, CliError> {
    let client = global.client()?;
    let node_ref = |node: Option<String>| {
        node.map(|text| {
            let Ok(node) = text.parse::<NodeRef>();
            node
        })
    };
    let action = match args.action {
        AccessCommand::Show { node } => {
            let view: AccessView = block_on(client.get(&["access"], &(), PLAIN))?;
            return show(view, node_ref(node), args.json);
        }
        AccessCommand::Set { node, grant, default, none: _ } => {
            let grants = block_on(in_force(&client, grant))?;
            AccessAction::Set { node: node_ref(node), grants: (!default).then_some(grants) }
        }
        AccessCommand::Apply { node } => AccessAction::Apply { node: node_ref(node) },
        AccessCommand::Rotate { cat } => AccessAction::Rotate { identifier: cat },
    };
    let report: AccessReport = block_on(client.post(&["access"], &action, SLOW))?;
    if args.json {
        output::json(&report)?
    } else {
        output::line(&report_text(&report))?
    }
    Ok(exit_code(&report))
}

/// A node that cannot hold its list is the device's problem; one that is away is told when it returns.
fn exit_code(report: &AccessReport) -> ExitCode {
    let has = |outcome: &str| report.nodes.iter().any(|node| node.outcome == outcome);
    match (report.complete, has("failed")) {
        (true, _) => ExitCode::Done,
        (false, true) => ExitCode::Device,
        (false, false) => ExitCode::Pending,
    }
}

fn show(mut view: AccessView, node: Option<NodeRef>, json: bool) -> Result<ExitCode, CliError> {
    if let Some(node) = node {
        view.nodes.retain(|held| match &node {
            NodeRef::Id(id) => held.node_id == *id,
            NodeRef::Name(name) => held.name == *name,
        });
        if view.nodes.is_empty() {
            return Err(CliError::Api(crate::admin::wire::Refusal::unknown_node(&node)));
        }
    }
    if json {
        output::json(&view)?;
        return Ok(ExitCode::Done);
    }
    let mut table = output::table(&["id", "name", "state", "holds", "shall hold"]);
    for node in &view.nodes {
        table.add_row([
            node.node_id.to_string(),
            node.name.clone(),
            node.state.clone(),
            or_dash(Some(grants(&node.cats))),
            grants(&node.wanted),
        ]);
    }
    let mut held = output::table(&["tag", "issued", "holder", "holds", "until", "let in"]);
    for tag in &view.tags {
        let (cat, issued) = (format!("{:#010x}", tag.cat), format!("{:#010x}", tag.issued));
        if tag.holders.is_empty() {
            held.add_row([
                cat.clone(),
                issued.clone(),
                "nobody".to_owned(),
                String::new(),
                String::new(),
                String::new(),
            ]);
        }
        for holder in &tag.holders {
            held.add_row([
                cat.clone(),
                issued.clone(),
                format!("{} ({})", holder.node_id, holder.name),
                format!("{:#010x}", holder.cat),
                or_dash(holder.expires_at.map(output::local)),
                if holder.admitted { "yes" } else { "no: renew" }.to_owned(),
            ]);
        }
    }
    let hub: Vec<String> = view.hub_cats.iter().map(|cat| format!("{cat:#010x}")).collect();
    output::line(&format!(
        "this hub   {:#010x} (in its certificate: {})\ngrants     {}\n{}\n\n{}",
        view.admin_cat,
        hub.join(", "),
        grants(&view.grants),
        output::table_text(&held),
        output::table_text(&table)
    ))?;
    Ok(ExitCode::Done)
}

fn report_text(report: &AccessReport) -> String {
    let mut table = output::table(&["id", "outcome", "holds", "cloud", "why"]);
    for node in &report.nodes {
        let cloud = if node.cloud_queued { "update queued" } else { "" };
        let cells = [&node.outcome, &grants(&node.cats), &cloud.to_owned(), &node.message].map(String::clone);
        table.add_row(std::iter::once(node.node_id.to_string()).chain(cells));
    }
    let rotated = report.rotated.map(|cat| format!("The tag is {cat:#010x} now.\n")).unwrap_or_default();
    let rest = if report.complete { "" } else { "\nNodes that are pending are told as soon as they are seen." };
    format!("{rotated}{}{rest}", output::table_text(&table))
}

fn grants(grants: &[CatGrant]) -> String {
    let each = grants.iter().map(|grant| format!("{} {}", grant.cat, grant.privilege.as_str()));
    each.collect::<Vec<_>>().join(", ")
}

/// A tag as people name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    /// In the version in force.
    Identifier(u16),
    /// In this version.
    Whole(Cat),
}

/// `CAT=PRIVILEGE`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    tag: Tag,
    privilege: Privilege,
}

/// A number of 16 bits is an identifier, wherever a tag is named; a larger one has its version in the lower 16 bits.
fn tag(text: &str) -> Result<Tag, String> {
    let value = number::<u32>(text)
        .ok_or_else(|| format!("{text:?} is no CASE Authenticated Tag, for instance 0x0002_0001"))?;
    match u16::try_from(value) {
        Ok(0) => Err("0 is no identifier of a tag; they begin with 1".to_owned()),
        Ok(identifier) => Ok(Tag::Identifier(identifier)),
        Err(_) => Cat::new(value).map(Tag::Whole).map_err(|error| error.to_string()),
    }
}

pub(super) fn identifier(text: &str) -> Result<u16, String> {
    Ok(match tag(text)? {
        Tag::Identifier(identifier) => identifier,
        Tag::Whole(cat) => cat.identifier(),
    })
}

fn grant(text: &str) -> Result<Wanted, String> {
    let (cat, privilege) = text.split_once('=').ok_or("a grant is CAT=PRIVILEGE, for instance 0x0002_0001=Operate")?;
    let tag = tag(cat)?;
    let all = [Privilege::View, Privilege::Operate, Privilege::Administer];
    let privilege = all.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(privilege));
    let privilege = privilege.ok_or("a privilege is View, Operate or Administer")?;
    Ok(Wanted { tag, privilege })
}

/// The grants with whole tags. Only the daemon knows which version an identifier has now.
async fn in_force(client: &AdminClient, wanted: Vec<Wanted>) -> Result<Vec<CatGrant>, CliError> {
    let view = match wanted.iter().any(|wanted| matches!(wanted.tag, Tag::Identifier(_))) {
        true => client.get(&["access"], &(), PLAIN).await?,
        false => AccessView::default(),
    };
    Ok(wanted.into_iter().map(|wanted| whole(&view, &wanted)).collect())
}

/// A tag that is not in use begins with version 1.
fn whole(view: &AccessView, Wanted { tag, privilege }: &Wanted) -> CatGrant {
    let cat = match *tag {
        Tag::Whole(cat) => cat,
        Tag::Identifier(identifier) => {
            let tags = view.tags.iter().filter_map(|held| Cat::new(held.cat).ok());
            let on_nodes = view.nodes.iter().flat_map(|node| &node.wanted);
            let known = tags.chain(view.grants.iter().chain(on_nodes).map(|grant| grant.cat));
            let newest = known.filter(|cat| cat.identifier() == identifier).max();
            newest.unwrap_or_else(|| Cat::new(u32::from(identifier) << 16 | 1).expect("version 1"))
        }
    };
    CatGrant { cat, privilege: *privilege }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_as_people_write_them() {
        for text in ["0x0002_0001", "2", "0x2", "131073"] {
            assert_eq!(identifier(text), Ok(2), "{text}");
        }
        let cat = Cat::new(0x0002_0001).unwrap();
        assert_eq!(grant("0x00020001=operate"), Ok(Wanted { tag: Tag::Whole(cat), privilege: Privilege::Operate }));
        assert_eq!(grant("5=View"), Ok(Wanted { tag: Tag::Identifier(5), privilege: Privilege::View }));
        assert!(grant("0x00020001=Own").is_err());
        assert!(grant("0x00020001").is_err());
        for (text, word) in [("0", "identifier"), ("0x0002_0000", "version"), ("lamp", "CASE Authenticated Tag")] {
            assert!(identifier(text).unwrap_err().contains(word), "{text}");
            assert!(grant(&format!("{text}=View")).unwrap_err().contains(word), "{text}");
        }
    }

    #[test]
    fn an_identifier_has_the_version_in_force() {
        let cat = |value| Cat::new(value).unwrap();
        let grants = vec![CatGrant { cat: cat(0x0005_0003), privilege: Privilege::View }];
        let view = AccessView { grants, ..AccessView::default() };
        let of = |text: &str| whole(&view, &grant(text).unwrap()).cat;
        assert_eq!(of("5=Operate"), cat(0x0005_0003));
        assert_eq!(of("6=Operate"), cat(0x0006_0001));
        assert_eq!(of("0x0005_0001=Operate"), cat(0x0005_0001), "the long form is taken at its word");
    }
}
