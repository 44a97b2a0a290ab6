//! The start of a connection: encryption requests, cancel requests, the startup packet and its parameters.

use crate::client::Client;
use crate::error::{Failure, PgError};
use crate::frontend::STARTUP_BYTES_MAX;
use crate::sql::{Isolation, TransactionModes};
use crate::verify::{PARAMETER, Verify};

const PROTOCOL_3: u32 = 3;
const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// Start-up parameters taken at most.
const PARAMETERS_MAX: usize = 128;

/// What a connection is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// A session.
    Session(Box<Startup>),
    /// To cancel what the session with this key does.
    Cancel { process: u32, secret: u32 },
}

/// A session's startup packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Startup {
    pub user: String,
    pub database: String,
    /// Settings for the backends.
    pub settings: Vec<(String, String)>,
    /// The session's `default_transaction_...`.
    pub defaults: TransactionModes,
    /// `steeldb.verify`, if it is given.
    pub verify: Option<Verify>,
    /// `_pq_.` options that are not known, and whether a newer minor protocol was asked for: both are answered with
    /// NegotiateProtocolVersion.
    pub unknown_options: Vec<String>,
    pub newer_minor: bool,
}

/// Reads what a connection begins with. Encryption requests are answered no.
pub(crate) async fn purpose(client: &mut Client) -> Result<Purpose, Failure> {
    // Each kind of encryption may be asked for once; more is a client that never comes to the point.
    for _ in 0..3 {
        let packet = client.startup_packet(STARTUP_BYTES_MAX).await?;
        let Some((code, rest)) = packet.split_first_chunk::<4>() else { break };
        match u32::from_be_bytes(*code) {
            SSL_REQUEST | GSSENC_REQUEST => {
                if client.has_input() {
                    // Bytes sent ahead of our answer were sent by someone between the client and us, or by a client
                    // that does not care: neither may be taken for what comes after.
                    break;
                }
                client.send_byte(b'N').await?;
            }
            CANCEL_REQUEST => {
                let key = rest.first_chunk::<8>().filter(|_| rest.len() == 8);
                let key = key.ok_or_else(|| fatal("08P01", "invalid length of cancel request"))?;
                let (process, secret) = key.split_at(4);
                let number =
                    |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
                return Ok(Purpose::Cancel { process: number(process), secret: number(secret) });
            }
            version if version >> 16 == PROTOCOL_3 => {
                let startup = parse(version & 0xffff, rest).map_err(Failure::Fatal)?;
                return Ok(Purpose::Session(Box::new(startup)));
            }
            version => {
                let text = format!(
                    "unsupported frontend protocol {}.{}: server supports 3.0",
                    version >> 16,
                    version & 0xffff
                );
                return Err(fatal("0A000", &text));
            }
        }
    }
    Err(fatal("08P01", "invalid startup packet"))
}

fn fatal(sqlstate: &str, message: &str) -> Failure {
    Failure::Fatal(PgError::fatal(sqlstate, message))
}

fn parse(minor: u32, body: &[u8]) -> Result<Startup, PgError> {
    let malformed =
        || PgError::fatal("08P01", "invalid startup packet layout: expected terminator as last byte");
    let text =
        std::str::from_utf8(body).map_err(|_| PgError::fatal("22021", "startup packet is not valid UTF8"))?;
    // name \0 value \0 ... \0
    let text = text.strip_suffix('\0').ok_or_else(malformed)?;
    let mut parts = text.split_terminator('\0');
    let mut startup = Startup {
        user: String::new(),
        database: String::new(),
        settings: Vec::new(),
        defaults: TransactionModes::default(),
        verify: None,
        unknown_options: Vec::new(),
        newer_minor: minor > 0,
    };
    let mut count = 0;
    while let Some(name) = parts.next() {
        let value = parts.next().ok_or_else(malformed)?;
        count += 1;
        if count > PARAMETERS_MAX {
            return Err(PgError::fatal("54000", "too many startup parameters"));
        }
        match name {
            "user" => startup.user = value.to_string(),
            "database" => startup.database = value.to_string(),
            "replication" => {
                if !matches!(value.to_ascii_lowercase().as_str(), "false" | "off" | "no" | "0" | "f" | "n") {
                    return Err(PgError::fatal("0A000", "replication connections are not supported")
                        .hint("Replication belongs to SteelDB."));
                }
            }
            "options" => {
                for (name, value) in options(value)? {
                    startup.set(name, value)?;
                }
            }
            name if name.starts_with("_pq_.") => startup.unknown_options.push(name.to_string()),
            name => startup.set(name.to_string(), value.to_string())?,
        }
    }
    if startup.user.is_empty() {
        return Err(PgError::fatal("28000", "no PostgreSQL user name specified in startup packet"));
    }
    if startup.database.is_empty() {
        startup.database.clone_from(&startup.user);
    }
    Ok(startup)
}

impl Startup {
    fn set(&mut self, name: String, value: String) -> Result<(), PgError> {
        let lower = name.to_ascii_lowercase();
        let invalid =
            || PgError::fatal("22023", format!("invalid value for parameter \"{name}\": \"{value}\""));
        let boolean = || match value.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" | "1" | "t" | "y" => Ok(true),
            "off" | "false" | "no" | "0" | "f" | "n" => Ok(false),
            _ => Err(invalid()),
        };
        match lower.as_str() {
            "default_transaction_isolation" => match Isolation::parse(&value).ok_or_else(invalid)? {
                Isolation::Serializable => return Err(serializable()),
                level => self.defaults.isolation = Some(level),
            },
            "default_transaction_read_only" => self.defaults.read_only = Some(boolean()?),
            "default_transaction_deferrable" => self.defaults.deferrable = Some(boolean()?),
            "client_encoding" if !is_utf8(&value) => return Err(encoding(&value)),
            PARAMETER => self.verify = Some(Verify::parse(&value).ok_or_else(invalid)?),
            "search_path" => {
                let extended = crate::sql::extended_path(&value);
                self.settings.push((name, extended.unwrap_or(value)));
            }
            _ => self.settings.push((name, value)),
        }
        Ok(())
    }
}

fn serializable() -> PgError {
    PgError::fatal("0A000", "SERIALIZABLE is not supported").hint("Use REPEATABLE READ.")
}

/// Whether text in this encoding can be taken as UTF-8. SQL_ASCII means bytes as they are.
pub(crate) fn is_utf8(encoding: &str) -> bool {
    let plain: String = encoding.chars().filter(char::is_ascii_alphanumeric).collect();
    matches!(plain.to_ascii_lowercase().as_str(), "utf8" | "unicode" | "sqlascii")
}

fn encoding(value: &str) -> PgError {
    PgError::fatal("0A000", format!("client encoding \"{value}\" is not supported")).hint("Use UTF8.")
}

/// Takes `-c name=value`, `-cname=value` and `--name=value` out of the `options` parameter. A backslash makes the next
/// character stand for itself.
fn options(text: &str) -> Result<Vec<(String, String)>, PgError> {
    let mut words = vec![String::new()];
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => {
                if let (Some(word), Some(next)) = (words.last_mut(), chars.next()) {
                    word.push(next);
                }
            }
            char if char.is_whitespace() => words.push(String::new()),
            char => {
                if let Some(word) = words.last_mut() {
                    word.push(char);
                }
            }
        }
    }
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = match (word.strip_prefix("-c"), word.strip_prefix("--")) {
            (Some(""), _) => words.next(),
            (Some(setting), _) => Some(setting.to_string()),
            (None, Some(setting)) => Some(setting.to_string()),
            (None, None) => None,
        };
        let pair = setting.as_deref().and_then(|setting| setting.split_once('='));
        let Some((name, value)) = pair else {
            return Err(PgError::fatal("0A000", format!("command-line option \"{word}\" is not supported"))
                .hint("Use -c name=value."));
        };
        // As PostgreSQL: dashes in a name given with two dashes stand for underscores.
        settings.push((name.replace('-', "_"), value.to_string()));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn body(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, value) in pairs {
            body.extend(format!("{name}\0{value}\0").bytes());
        }
        body.push(0);
        body
    }

    #[test]
    fn parameters_are_taken_and_defaults_filled_in() {
        let startup = parse(
            0,
            &body(&[
                ("user", "alice"),
                ("application_name", "psql"),
                ("options", r"-c search_path=a\ b,c --work-mem=64MB -cdefault_transaction_read_only=on"),
                ("client_encoding", "utf-8"),
                ("SteelDB.Verify", "Eager"),
                ("_pq_.new", "1"),
            ]),
        )
        .unwrap();
        assert_eq!((startup.user.as_str(), startup.database.as_str()), ("alice", "alice"));
        let settings: Vec<(&str, &str)> =
            startup.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            settings,
            [
                ("application_name", "psql"),
                ("search_path", "a b,c, steeldb, pg_catalog"),
                ("work_mem", "64MB"),
                ("client_encoding", "utf-8")
            ]
        );
        assert_eq!(startup.defaults.read_only, Some(true));
        assert_eq!(startup.verify, Some(Verify::Eager));
        assert_eq!(startup.unknown_options, ["_pq_.new"]);
        assert!(!startup.newer_minor);
        assert!(parse(2, &body(&[("user", "a")])).unwrap().newer_minor);
    }

    #[test]
    fn what_cannot_be_is_refused_by_sqlstate() {
        let cases: [(&[(&str, &str)], &str); 8] = [
            (&[("user", "a"), ("steeldb.verify", "later")], "22023"),
            (&[], "28000"),
            (&[("user", "")], "28000"),
            (&[("user", "a"), ("replication", "database")], "0A000"),
            (&[("user", "a"), ("client_encoding", "LATIN1")], "0A000"),
            (&[("user", "a"), ("options", "-F")], "0A000"),
            (&[("user", "a"), ("default_transaction_isolation", "serializable")], "0A000"),
            (&[("user", "a"), ("default_transaction_read_only", "perhaps")], "22023"),
        ];
        for (pairs, sqlstate) in cases {
            assert_eq!(parse(0, &body(pairs)).unwrap_err().sqlstate.as_str(), sqlstate, "{pairs:?}");
        }
        for bytes in [&b"user"[..], b"user\0a", b"user\0", b"\xff\0\xff\0\0"] {
            assert!(parse(0, bytes).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_panic(bytes: Vec<u8>) {
            let _ = parse(0, &bytes);
        }

        #[test]
        fn no_options_make_it_panic(text: String) {
            let _ = options(&text);
        }
    }
}
