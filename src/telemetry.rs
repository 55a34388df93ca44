//! Logs: one subscriber for the process, to standard error; and panics, which are logged without their message.
//!
//! Secret values stay out of logs by their types. Here two more doors are shut: kube's client writes the whole body
//! of an answer that it cannot read, at `warn`, and such a body may be a Secret; and a panic's message may hold the
//! value that it stumbled over. Both are closed at every level, whatever the filter says.

use std::{io, panic::PanicHookInfo, sync::Once};

use tracing::{Metadata, Subscriber, error};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter, fmt::MakeWriter, layer::SubscriberExt, registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::config::{Config, LogFormat};

/// Modules whose events may quote bodies of answers. Exact names: their submodules log no bodies.
const QUOTES_BODIES: [&str; 1] = ["kube_client::client"];

/// A failure to set up logging.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("failed to read the log filter")]
    Filter(#[source] filter::ParseError),
    /// A subscriber is set already.
    #[error("failed to set the log subscriber")]
    Subscriber(#[source] tracing_subscriber::util::TryInitError),
}

/// Logs to standard error from now on, and logs panics.
///
/// # Errors
/// When the filter does not parse (that of a [`Config`] was checked already), or logging was set up before.
pub fn init(config: &Config) -> Result<(), TelemetryError> {
    let subscriber = subscriber(config.log_format, &config.log_filter, io::stderr)?;
    subscriber.try_init().map_err(TelemetryError::Subscriber)?;
    static HOOK: Once = Once::new();
    HOOK.call_once(|| std::panic::set_hook(Box::new(log_panic)));
    Ok(())
}

fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    writer: W,
) -> Result<impl Subscriber + Send + Sync, TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(filter).map_err(TelemetryError::Filter)?;
    let lines = match format {
        LogFormat::Text => tracing_subscriber::fmt::layer().with_ansi(false).with_writer(writer).boxed(),
        LogFormat::Json => json(writer),
    };
    Ok(Registry::default().with(filter).with(lines.with_filter(filter::filter_fn(may_be_logged))))
}

/// Fields beside the message, and the fields of the spans around it, outermost first.
fn json<S, W>(writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(true)
        .with_writer(writer)
        .boxed()
}

fn may_be_logged(event: &Metadata<'_>) -> bool {
    !QUOTES_BODIES.contains(&event.target())
}

/// Says that and where a thread panicked; not why, as the message may hold a value.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    error!(%location, thread = thread.name().unwrap_or_default(), "Panicked");
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

    use tracing::{info, info_span, subscriber::with_default, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged in a format and by a filter.
    fn logged(format: LogFormat, filter: &str, work: impl FnOnce()) -> String {
        let page = Page::default();
        let writer = page.clone();
        with_default(subscriber(format, filter, move || writer.clone()).unwrap(), work);
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    /// The panic hook belongs to the whole process; tests that change it take turns.
    fn hook() -> MutexGuard<'static, ()> {
        static TURN: Mutex<()> = Mutex::new(());
        TURN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[test]
    fn a_json_line_has_message_fields_and_spans() {
        let line = logged(LogFormat::Json, "info", || {
            let _span = info_span!("reconcile", api_key.name = "web").entered();
            info!(revision = 2, "Key published");
        });
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["message"], "Key published");
        assert_eq!(line["revision"], 2);
        assert_eq!(line["spans"][0]["api_key.name"], "web");
    }

    #[test]
    fn the_filter_decides_by_level_and_module() {
        let work = || {
            warn!(target: "elsewhere", "loud");
            info!(target: "elsewhere", "quiet");
        };
        let page = logged(LogFormat::Text, "info,elsewhere=warn", work);
        assert!(page.contains("loud") && !page.contains("quiet"), "{page}");
        assert!(matches!(subscriber(LogFormat::Text, "a=b=c", io::sink), Err(TelemetryError::Filter(_))));
    }

    #[test]
    fn bodies_that_kube_quotes_are_never_logged() {
        let page = logged(LogFormat::Text, "trace", || {
            warn!(target: "kube_client::client", "value-one-for-tests");
            info!(target: "kube_client::client::builder", "requesting");
        });
        assert!(!page.contains("value-one-for-tests") && page.contains("requesting"), "{page}");
    }

    #[test]
    fn a_panic_is_logged_by_its_place_only() {
        let _turn = hook();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(log_panic));
        let page = logged(LogFormat::Text, "info", || {
            assert!(std::panic::catch_unwind(|| panic!("value-one-for-tests")).is_err());
        });
        std::panic::set_hook(before);
        assert!(page.contains("Panicked") && page.contains("src/telemetry.rs:"), "{page}");
        assert!(!page.contains("value-one-for-tests"), "{page}");
    }
}
