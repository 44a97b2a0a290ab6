//! Log lines, to stderr. Replica, transaction and order position are fields of the events themselves.

use crate::cli::{LogFormat, Logging};
use std::io::IsTerminal as _;
use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;

/// Sets another filter.
type SetFilter = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// How to change what is logged; nothing where the command line or RUST_LOG has said it, or before the start.
static SET: OnceLock<SetFilter> = OnceLock::new();

/// Starts logging. Servers say what happens; other commands only what goes wrong.
pub(crate) fn init(options: &Logging, server: bool) {
    let default = if server { "info" } else { "warn" };
    let variable = std::env::var("RUST_LOG").ok().filter(|text| !text.is_empty());
    let said = options.log_level.is_some() || variable.is_some();
    let (filter, refused) = filter(options.log_level.as_deref(), variable, default);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // An error means that logging has been started before, which a test may do.
    let set: SetFilter = match options.log_format {
        LogFormat::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Box::new(move |filter| drop(handle.reload(filter)))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let _ = builder.try_init();
            Box::new(move |filter| drop(handle.reload(filter)))
        }
    };
    if !said {
        let _ = SET.set(set);
    }
    if let Some(refused) = refused {
        tracing::warn!("not a log filter, {default} is used: {refused}");
    }
}

/// Logs what a server's configuration says, unless the command line or RUST_LOG has said it.
pub(crate) fn configure(level: Option<&str>) {
    if let Some(set) = SET.get()
        && let Ok(filter) = EnvFilter::try_new(level.unwrap_or("info"))
    {
        set(filter);
    }
}

/// The filter, and what was given but is none. The flag goes before the variable.
fn filter(flag: Option<&str>, variable: Option<String>, default: &str) -> (EnvFilter, Option<String>) {
    let wanted = flag.map(str::to_string).or(variable.filter(|text| !text.is_empty()));
    let Some(wanted) = wanted else { return (EnvFilter::new(default), None) };
    match EnvFilter::try_new(&wanted) {
        Ok(filter) => (filter, None),
        Err(_) => (EnvFilter::new(default), Some(wanted)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_goes_before_the_variable_and_nonsense_is_reported() {
        let shown = |flag, variable: Option<&str>| {
            let (filter, refused) = filter(flag, variable.map(str::to_string), "info");
            (filter.to_string(), refused)
        };
        assert_eq!(shown(None, None), ("info".into(), None));
        assert_eq!(shown(None, Some("debug")), ("debug".into(), None));
        assert_eq!(shown(Some("trace"), Some("debug")), ("trace".into(), None));
        assert_eq!(shown(Some("=,="), None), ("info".into(), Some("=,=".into())));
    }
}
