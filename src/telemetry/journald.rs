//! Records as journald wants them: fields without a prefix, so that MESSAGE_ID is one, and nothing of the machine that built this.
//!
//! Not here: which records are printed (`telemetry`), which of them have a MESSAGE_ID (`journal`).

use std::io;

use tracing::field::{Field, Value, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// What a bridged `log` record keeps of its fields; the others name files of the machine that built it.
const KEPT: [&str; 2] = ["message", "log.target"];

pub(crate) struct Journald(tracing_journald::Layer);

impl Journald {
    /// To the journal of this machine.
    ///
    /// # Errors
    /// It cannot be reached.
    pub(crate) fn connect() -> io::Result<Self> {
        Ok(Self(tracing_journald::layer()?.with_field_prefix(None).with_syslog_identifier("matterbind".to_owned())))
    }
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Journald {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        self.0.on_new_span(attributes, id, context);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        self.0.on_record(id, values, context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        without_origin(event, |event| self.0.on_event(event, context));
    }
}

/// Passes an event on; one that the `log` bridge made, without the fields that say where its source was.
fn without_origin(event: &Event<'_>, pass: impl FnOnce(&Event<'_>)) {
    let metadata = event.metadata();
    if metadata.target() != "log" {
        return pass(event);
    }
    let mut texts = Texts::default();
    event.record(&mut texts);
    let fields = metadata.fields();
    let kept = KEPT.map(|name| (fields.field(name), texts.of(name)));
    // The bridge's events have all of its fields.
    let [(Some(message), message_text), (Some(target), target_text)] = kept else { return pass(event) };
    let values = [(&message, Some(&message_text as &dyn Value)), (&target, Some(&target_text as &dyn Value))];
    pass(&Event::new(metadata, &fields.value_set(&values)));
}

/// The fields of a record as text.
#[derive(Default)]
struct Texts(Vec<(&'static str, String)>);

impl Texts {
    fn of(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| *known == name).map_or("", |(_, text)| text)
    }
}

impl Visit for Texts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::SubscriberExt;

    /// What the layer below would print.
    #[derive(Clone, Default)]
    struct Below(Arc<Mutex<Vec<(&'static str, String)>>>);

    impl<S: Subscriber> Layer<S> for Below {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            without_origin(event, |event| {
                let mut texts = Texts::default();
                event.record(&mut texts);
                self.0.lock().unwrap().extend(texts.0);
            });
        }
    }

    #[test]
    fn a_bridged_record_says_what_and_who_and_no_file() {
        let below = Below::default();
        let subscriber = tracing_subscriber::registry().with(below.clone());
        tracing::subscriber::with_default(subscriber, || {
            let bridged = tracing::log::Record::builder()
                .target("rs_matter::transport")
                .level(tracing::log::Level::Warn)
                .args(format_args!("Dropped an exchange"))
                .file(Some("/home/builder/rs-matter/transport.rs"))
                .module_path(Some("rs_matter::transport"))
                .line(Some(3))
                .build();
            tracing_log::format_trace(&bridged).unwrap();
            tracing::warn!(node.id = 5, "our own");
        });
        let expected = [
            ("message", "Dropped an exchange"),
            ("log.target", "rs_matter::transport"),
            ("message", "our own"),
            ("node.id", "5"),
        ];
        assert_eq!(below.0.lock().unwrap().clone(), expected.map(|(name, text)| (name, text.to_owned())));
    }
}
