//! The messages of the transaction protocol (design, section 2), and the digests that its proofs are made of.
//!
//! Invariants:
//! - A transcript (the chain h_0 .. h_k) is a function of what the client asked and of what it was shown; shim and
//!   replicas compute it with the same code ([`transcript`], [`result`]).
//! - A certificate is judged by a function of its bytes, the view and the replicas' keys alone ([`certificate`]).

mod certificate;
mod finish;
mod link;
mod mastership;
mod membership;
mod merkle;
mod operation;
mod ordered;
mod over;
mod result;
mod sequence;
mod state;
mod stream;
mod transcript;
mod vote;

pub use certificate::{AbortCertificate, CertificateError, CommitCertificate, SignatureMemo};
pub use finish::{Decision, Finish, SignedFinish};
pub use link::{AbortReason, ClientMessage, Outcome, ReplicaMessage, TableDigest};
pub use mastership::{Accusation, Cause, DeposeCertificate, MasterMove, SignedAccusation};
pub use membership::{MembershipReply, MembershipRequest, ReplicaStatus, change_digest};
pub use merkle::{MerklePath, MerkleTree};
pub use operation::{CopyDigest, Operation, OperationKind, StatementId, StatementText};
pub use ordered::{Modes, Ordered};
pub use over::SessionOver;
pub use result::{FIRST_USER_OID, ResultDigest, ResultError};
pub use sequence::{DrawKind, Draws, Run};
pub use state::TransactionState;
pub use stream::{Executed, Stream};
pub use transcript::{Transcript, preamble};
pub use vote::{SignedVote, SqlState, Vote, VoteBundle, VoteKind, Wall};
