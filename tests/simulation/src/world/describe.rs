//! Messages in a few words, for the trace.

use steeldb_ordering::Message;
use steeldb_types::ReplicaId;

pub(super) fn describe(message: &Message) -> String {
    let name = message.name();
    match message {
        Message::Propose { regency, proposal } => {
            format!("{name} {regency:?} {:?} {:?}", proposal.instance, proposal.digest())
        }
        Message::Write { instance, claim } | Message::Accept { instance, claim, .. } => {
            format!("{name} {:?} {instance:?} {:?}", claim.regency, claim.value)
        }
        Message::Stop { regency, requests } => format!("{name} {regency:?} with {} requests", requests.len()),
        Message::StopData { data, .. } => {
            let data = &data.data;
            let bound = data.votes.iter().filter_map(|votes| Some((votes.instance, votes.bound?)));
            format!("{name} {:?} {:?} bound {:?}", data.regency, data.next(), bound.collect::<Vec<_>>())
        }
        Message::Sync { regency, stop_data, proposals } => {
            let from: Vec<ReplicaId> = stop_data.iter().map(|signed| signed.data.replica).collect();
            let values = proposals.iter().map(|proposal| (proposal.instance, proposal.digest()));
            let values: Vec<_> = values.collect();
            format!("{name} {regency:?} of {from:?} {values:?}")
        }
        Message::FetchDecisions { from, regency } => format!("{name} {from:?} {regency:?}"),
        Message::Decisions { decisions, more } => {
            let first = decisions.first().map(|decision| decision.instance());
            format!("{name} {} from {first:?} more {more}", decisions.len())
        }
        Message::Forward { requests } => format!("{name} {}", requests.len()),
        Message::Checkpoint { instance, digest, .. } => format!("{name} {instance:?} {digest:?}"),
        Message::CheckpointOffer { certificate, .. } => format!("{name} {:?}", certificate.instance),
        Message::FetchState { instance, part } => format!("{name} {instance:?} {part:?}"),
        Message::State { instance, part, bytes } => {
            format!("{name} {instance:?} {part:?} {} bytes", bytes.len())
        }
    }
}
