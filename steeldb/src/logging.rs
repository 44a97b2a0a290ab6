//! Log lines, to stderr. Replica, transaction and order position are fields of the events themselves.

use crate::cli::{LogFormat, Logging};
use std::io::IsTerminal as _;
use tracing_subscriber::EnvFilter;

/// Starts logging. Servers say what happens; other commands only what goes wrong.
pub(crate) fn init(options: &Logging, server: bool) {
    let default = if server { "info" } else { "warn" };
    let (filter, refused) = filter(options.log_level.as_deref(), std::env::var("RUST_LOG").ok(), default);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // An error means that logging has been started before, which a test may do.
    let _ = match options.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Some(refused) = refused {
        tracing::warn!("not a log filter, {default} is used: {refused}");
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
