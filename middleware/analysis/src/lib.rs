//! PostgreSQL's own grammar for those who must not guess: [`parse`] holds it within bounds of time, stack and panic;
//! [`certificate`] says of which statements the grammar alone leaves no choice of result.
//!
//! The proxy reads its clients' statements with it, and each replica those of clients whose proxies it does not trust.
//! Invariants: no text makes it panic or overflow its stack; what it does not understand it does not certify.

pub mod certificate;
mod error;
pub mod parse;

pub use certificate::{Certificate, Command, Name, certificate};
pub use error::SyntaxError;
