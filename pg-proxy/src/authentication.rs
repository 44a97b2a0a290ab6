//! Who may log in: anyone (`trust`), or users with a SCRAM-SHA-256 verifier (RFC 5802, RFC 7677), as PostgreSQL stores
//! them in `pg_authid.rolpassword`. There is no channel binding, since links from applications carry no TLS yet.
//!
//! A user that does not exist is taken through the same exchange, with a salt that stays the same from one attempt to
//! the next, so that nobody learns who exists.

use crate::backend;
use crate::client::Client;
use crate::error::{Failure, PgError};
use crate::frontend::STARTUP_BYTES_MAX;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use subtle::ConstantTimeEq;

const MECHANISM: &str = "SCRAM-SHA-256";

/// As PostgreSQL's default; shown for users that do not exist.
const ITERATIONS: u32 = 4096;

/// How clients are authenticated.
#[derive(Clone, Debug, Default)]
pub enum Authentication {
    /// Whoever reaches the proxy may be any role that its key may use.
    #[default]
    Trust,
    /// SCRAM-SHA-256.
    Scram(Arc<Users>),
}

/// Users and their verifiers.
pub struct Users {
    verifiers: HashMap<String, Verifier>,
    /// Makes up salts for users that do not exist.
    secret: [u8; 32],
}

#[derive(Clone)]
struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; 32],
    server_key: [u8; 32],
}

/// Why a users file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UsersError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Read {
        /// Which.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// A line is not `name verifier`.
    #[error("{origin}:{line}: expected a user name and a SCRAM-SHA-256 verifier as PostgreSQL stores it")]
    Line {
        /// The file.
        origin: String,
        /// Counted from 1.
        line: usize,
    },
}

impl Users {
    /// Reads a file of lines `name SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`. A name may be in double quotes;
    /// empty lines and lines that begin with `#` do not count.
    ///
    /// # Errors
    /// [`UsersError`] names the file and the line.
    pub fn load(path: &Path) -> Result<Users, UsersError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| UsersError::Read { path: path.display().to_string(), error })?;
        Users::parse(&text, &path.display().to_string())
    }

    /// As [`Users::load`], of a text; `origin` is named in errors.
    ///
    /// # Errors
    /// [`UsersError::Line`].
    pub fn parse(text: &str, origin: &str) -> Result<Users, UsersError> {
        let mut verifiers = HashMap::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let entry =
                entry(line).ok_or_else(|| UsersError::Line { origin: origin.into(), line: number })?;
            verifiers.insert(entry.0, entry.1);
        }
        Ok(Users { verifiers, secret: rand::random() })
    }

    /// The user's verifier; one that no password fits if there is no such user.
    fn verifier(&self, user: &str) -> Verifier {
        self.verifiers.get(user).cloned().unwrap_or_else(|| {
            let salt = hmac(&self.secret, &[user.as_bytes()]);
            Verifier {
                iterations: ITERATIONS,
                salt: salt[..16].to_vec(),
                stored_key: rand::random(),
                server_key: rand::random(),
            }
        })
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Users({})", self.verifiers.len())
    }
}

fn entry(line: &str) -> Option<(String, Verifier)> {
    let (name, rest) = match line.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?,
        None => line.split_once(char::is_whitespace)?,
    };
    let (iterations, rest) = rest.trim().strip_prefix("SCRAM-SHA-256$")?.split_once(':')?;
    let (salt, keys) = rest.split_once('$')?;
    let (stored_key, server_key) = keys.split_once(':')?;
    let key = |text: &str| <[u8; 32]>::try_from(BASE64.decode(text).ok()?).ok();
    let verifier = Verifier {
        iterations: iterations.parse().ok().filter(|count| *count > 0)?,
        salt: BASE64.decode(salt).ok()?,
        stored_key: key(stored_key)?,
        server_key: key(server_key)?,
    };
    Some((name.to_string(), verifier)).filter(|(name, _)| !name.is_empty())
}

/// Authenticates the client as `user`, or fails the way PostgreSQL does.
pub(crate) async fn authenticate(
    client: &mut Client,
    authentication: &Authentication,
    user: &str,
) -> Result<(), Failure> {
    let Authentication::Scram(users) = authentication else { return Ok(()) };
    backend::authentication_sasl(&mut client.out, MECHANISM);
    client.flush().await?;
    let first = initial_response(&sasl_message(client).await?)?;
    let nonce = BASE64.encode(rand::random::<[u8; 18]>());
    let mut exchange = Exchange::start(users.verifier(user), &first, &nonce)?;
    backend::authentication_sasl_continue(&mut client.out, exchange.server_first.as_bytes());
    client.flush().await?;
    let last = sasl_message(client).await?;
    let signature = exchange.finish(&last)?.ok_or_else(|| {
        Failure::Fatal(PgError::fatal("28P01", format!("password authentication failed for user \"{user}\"")))
    })?;
    backend::authentication_sasl_final(&mut client.out, signature.as_bytes());
    Ok(())
}

async fn sasl_message(client: &mut Client) -> Result<Vec<u8>, Failure> {
    let packet = client.packet(STARTUP_BYTES_MAX).await?;
    if packet.tag != b'p' {
        return Err(Failure::Fatal(PgError::fatal("08P01", "expected SASL response")));
    }
    Ok(packet.body.to_vec())
}

/// Takes the client's first message out of SASLInitialResponse: mechanism, length, data.
fn initial_response(body: &[u8]) -> Result<Vec<u8>, Failure> {
    let malformed = || Failure::Fatal(PgError::fatal("08P01", "malformed SASL message"));
    let end = body.iter().position(|byte| *byte == 0).ok_or_else(malformed)?;
    let (mechanism, rest) = body.split_at(end);
    if mechanism != MECHANISM.as_bytes() {
        return Err(Failure::Fatal(PgError::fatal(
            "08P01",
            "client selected an invalid SASL authentication mechanism",
        )));
    }
    rest.get(5..).map(<[u8]>::to_vec).ok_or_else(malformed)
}

/// The server's side of one SCRAM exchange.
struct Exchange {
    verifier: Verifier,
    client_first_bare: String,
    gs2: String,
    nonce: String,
    server_first: String,
}

impl Exchange {
    fn start(verifier: Verifier, client_first: &[u8], server_nonce: &str) -> Result<Exchange, Failure> {
        let malformed = || Failure::Fatal(PgError::fatal("08P01", "malformed SCRAM message"));
        let text = std::str::from_utf8(client_first).map_err(|_| malformed())?;
        // gs2-cbind-flag "," [authzid] "," client-first-message-bare. The user is the one of the startup packet.
        let mut parts = text.splitn(3, ',');
        let (flag, authzid) = (parts.next().unwrap_or_default(), parts.next().ok_or_else(malformed)?);
        let bare = parts.next().ok_or_else(malformed)?;
        if !matches!(flag, "n" | "y") || !authzid.is_empty() {
            return Err(Failure::Fatal(PgError::fatal(
                "08P01",
                "unsupported SCRAM channel binding or authorization",
            )));
        }
        let nonce = bare.split(',').find_map(|part| part.strip_prefix("r=")).ok_or_else(malformed)?;
        if nonce.is_empty() || !nonce.bytes().all(|byte| (0x21..=0x7e).contains(&byte)) {
            return Err(malformed());
        }
        let nonce = format!("{nonce}{server_nonce}");
        let server_first = format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.iterations);
        Ok(Exchange {
            verifier,
            client_first_bare: bare.to_string(),
            gs2: format!("{flag},,"),
            nonce,
            server_first,
        })
    }

    /// The server's last message if the proof holds, nothing if it does not.
    fn finish(&mut self, client_final: &[u8]) -> Result<Option<String>, Failure> {
        let malformed = || Failure::Fatal(PgError::fatal("08P01", "malformed SCRAM message"));
        let text = std::str::from_utf8(client_final).map_err(|_| malformed())?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or_else(malformed)?;
        let proof: [u8; 32] =
            BASE64.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or_else(malformed)?;
        let mut parts = without_proof.split(',');
        let binding = parts.next().and_then(|part| part.strip_prefix("c=")).ok_or_else(malformed)?;
        let nonce = parts.next().and_then(|part| part.strip_prefix("r=")).ok_or_else(malformed)?;
        if binding != BASE64.encode(&self.gs2) || nonce != self.nonce {
            return Err(malformed());
        }
        let message = [self.client_first_bare.as_str(), &self.server_first, without_proof].join(",");
        let client_signature = hmac(&self.verifier.stored_key, &[message.as_bytes()]);
        let mut client_key = proof;
        for (byte, mask) in client_key.iter_mut().zip(client_signature) {
            *byte ^= mask;
        }
        let stored_key: [u8; 32] = Sha256::digest(client_key).into();
        if !bool::from(stored_key.ct_eq(&self.verifier.stored_key)) {
            return Ok(None);
        }
        let signature = hmac(&self.verifier.server_key, &[message.as_bytes()]);
        Ok(Some(format!("v={}", BASE64.encode(signature))))
    }
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    // Padded with zeros to HMAC-SHA-256's block, as RFC 2104 does with shorter keys: no length can be wrong.
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

    fn users(password: &str) -> Users {
        let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
        Users::parse(&format!("# people\n\n\"alice\" {verifier}\nbob {verifier}\n"), "users").unwrap()
    }

    fn exchange(users: &Users, user: &str, password: &str) -> Result<bool, String> {
        let mut client = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let mut server = Exchange::start(users.verifier(user), client.message(), "servernonce")
            .map_err(|error| format!("{error:?}"))?;
        client.update(server.server_first.as_bytes()).map_err(|error| error.to_string())?;
        let last = server.finish(client.message()).map_err(|error| format!("{error:?}"))?;
        match last {
            Some(last) => client.finish(last.as_bytes()).map(|()| true).map_err(|error| error.to_string()),
            None => Ok(false),
        }
    }

    #[test]
    fn the_right_password_passes_and_nothing_else_does() {
        let users = users("secret");
        assert_eq!(exchange(&users, "alice", "secret"), Ok(true));
        assert_eq!(exchange(&users, "bob", "secret"), Ok(true));
        assert_eq!(exchange(&users, "alice", "Secret"), Ok(false));
        assert_eq!(exchange(&users, "mallory", "secret"), Ok(false));
    }

    #[test]
    fn who_does_not_exist_is_asked_the_same_way_each_time() {
        let users = users("secret");
        assert_eq!(users.verifier("mallory").salt, users.verifier("mallory").salt);
        assert_ne!(users.verifier("mallory").salt, users.verifier("eve").salt);
        assert_eq!(users.verifier("mallory").iterations, users.verifier("alice").iterations);
        assert_eq!(users.verifier("mallory").salt.len(), users.verifier("alice").salt.len());
    }

    #[test]
    fn malformed_messages_and_files_are_refused() {
        let users = users("secret");
        for text in ["", "n", "n,,", "p=tls-server-end-point,,n=,r=abc", "n,a=x,n=,r=abc", "n,,n=,r="] {
            assert!(Exchange::start(users.verifier("alice"), text.as_bytes(), "s").is_err(), "{text}");
        }
        for text in ["", "c=biws", "c=biws,r=abcs,p=!!", "c=xxxx,r=abcs,p=AAAA"] {
            let mut exchange = Exchange::start(users.verifier("alice"), b"n,,n=,r=abc", "s").unwrap();
            assert!(exchange.finish(text.as_bytes()).is_err(), "{text}");
        }
        assert!(initial_response(b"SCRAM-SHA-256-PLUS\0\0\0\0\x01n").is_err());
        assert!(initial_response(b"SCRAM-SHA-256\0\0").is_err());
        for line in ["alice", "alice md5abc", "alice SCRAM-SHA-256$0:AA==$AA==:AA==", "\"alice SCRAM"] {
            let error = Users::parse(&format!("\n{line}"), "users").unwrap_err();
            assert!(error.to_string().starts_with("users:2:"), "{error}");
        }
    }
}
