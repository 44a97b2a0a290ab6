//! Restart: the journal's decisions against what PostgreSQL holds (A5). A GID that is present is prepared and not applied;
//! a record that is visible is applied; neither: the transaction's effects are not here.

use crate::effects::Effects;
use crate::scheduler::{Missing, OpenTransactions};
use anyhow::Context as _;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use steeldb_ordering::{Delivery, Request};
use steeldb_postgres::transaction::{gid, prepared_gids, recorded_of, recorded_upto};
use steeldb_postgres::{AGENT_ROLE, Backend, quote};
use steeldb_types::{Slot, TxId, View, temporary_schema};
use steeldb_wire::transaction::Ordered;

/// Commits that are looked up at once.
const LOOKED_UP_AT_ONCE: usize = 1000;

/// What a restarted replica knows.
pub(super) struct Recovered {
    /// The open transactions at the journal's end.
    pub open: OpenTransactions,
    /// Prepared here and not resolved, with their databases.
    pub in_doubt: Vec<(TxId, Slot, String)>,
    /// Decided commits that are not applied here, in their order. Those that are prepared are in doubt, too.
    pub missing: Vec<Missing>,
    /// Open, prepared here before, and not any more (A12).
    pub vanished: Vec<TxId>,
    /// Databases and schemas of temporary relations whose sessions are over.
    pub leftovers: BTreeSet<(String, String)>,
}

/// Replays the deliveries that the ordering core gave when it was restored onto the order's beginning, `open`, and settles
/// what was prepared. `view_made_by` knows the view that a change of the membership made.
pub(super) async fn recover(
    socket_dir: &Path,
    databases: &[String],
    deliveries: &[Delivery],
    effects: &Effects,
    mut open: OpenTransactions,
    view_made_by: impl Fn(&[u8]) -> Option<View>,
) -> anyhow::Result<Recovered> {
    let mut backends = BTreeMap::new();
    let mut prepared: BTreeMap<String, String> = BTreeMap::new();
    for database in databases {
        let mut backend = Backend::connect(socket_dir, database, AGENT_ROLE, &[])
            .await
            .with_context(|| format!("cannot connect to database \"{database}\""))?;
        for gid in prepared_gids(&mut backend, database).await? {
            prepared.insert(gid, database.clone());
        }
        backends.insert(database.clone(), backend);
    }
    // Of what is prepared: those whose BEGIN is in the journal.
    let mut known = BTreeSet::new();
    let mut commits = Vec::new();
    for delivery in deliveries {
        for (position, request) in &delivery.requests {
            if request.is_membership() {
                let view = view_made_by(request.payload())
                    .with_context(|| format!("the change of the membership at {position} made no view"))?;
                open.change_view(*position, view);
                continue;
            }
            let ordered = crate::validity::decode(request_payload(request)).map_err(|reason| {
                anyhow::anyhow!("the journal holds an invalid request at {position}: {reason}")
            })?;
            if let Ordered::Begin { tx, .. } = &ordered {
                known.extend(Some(gid(*tx, *position)).filter(|gid| prepared.contains_key(gid)));
            }
            commits.extend(open.replay(*position, delivery.timestamp, &ordered));
        }
    }
    let mut missing = Vec::new();
    let mut in_doubt = Vec::new();
    // All of them: a replica that was catching up may have had any number before it.
    for commits in commits.chunks(LOOKED_UP_AT_ONCE) {
        let mut recorded = BTreeSet::new();
        for (database, backend) in &mut backends {
            let here = commits.iter().filter(|commit| commit.database == *database);
            recorded.extend(recorded_of(backend, here.map(|commit| commit.certificate.tx)).await?);
        }
        for commit in commits {
            let (tx, slot) = (commit.certificate.tx, commit.certificate.slot);
            if let Some(database) = prepared.remove(&gid(tx, slot)) {
                // Applied once decoding has shown that these are the effects that the certificate names (A3).
                in_doubt.push((tx, slot, database.clone()));
                missing.push(Missing { database, ..commit.clone() });
            } else if !recorded.contains(&tx) && backends.contains_key(&commit.database) {
                missing.push(commit.clone());
            }
        }
    }
    no_older_than_data(&open, &mut backends).await?;
    let mut vanished = Vec::new();
    for (tx, slot) in open.iter() {
        let gid = gid(tx, slot);
        if let Some(database) = prepared.remove(&gid) {
            in_doubt.push((tx, slot, database));
        } else if effects.keeps_rows(&gid) {
            vanished.push(tx);
        }
    }
    for (gid, database) in prepared {
        if gid.len() == 64 && gid.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            // Its Abort is in the order; or the journal has lost its BEGIN with its tail, and so this replica has never
            // voted for it: a vote leaves when what it rests on is in the journal (E7).
            if let Some(backend) = backends.get_mut(&database) {
                backend.simple(&format!("ROLLBACK PREPARED {}", quote::literal(&gid))).await?;
            }
            let known = known.contains(&gid);
            tracing::warn!(
                gid,
                known,
                "a prepared transaction that is not open in the order (any more) is rolled back"
            );
        } else {
            tracing::warn!(gid, "a prepared transaction that is not SteelDB's is left alone");
        }
    }
    let kept = open.temporary_schemas();
    let mut leftovers = BTreeSet::new();
    for (database, backend) in &mut backends {
        let schemas = super::temporary::schemas(backend).await?;
        leftovers.extend(schemas.into_iter().map(|schema| (database.clone(), schema)));
    }
    // Those that commits which are still missing here will make.
    let made = missing.iter().filter(|missing| missing.certificate.wall.is_scripted());
    leftovers.extend(
        made.map(|missing| (missing.database.clone(), temporary_schema(missing.certificate.tx.session))),
    );
    leftovers.retain(|of| !kept.contains(of));
    Ok(Recovered { open, in_doubt, missing, vanished, leftovers })
}

/// What is applied waits for the record of its decision. So data that hold more than the journal knows are not of one time
/// with it: it was restored from a backup, and what this replica promised to others since is lost.
async fn no_older_than_data(
    open: &OpenTransactions,
    backends: &mut BTreeMap<String, Backend>,
) -> anyhow::Result<()> {
    let delivered = open.delivered();
    for (database, backend) in backends {
        let applied = match recorded_upto(backend).await? {
            Some(slot) if slot > delivered => Some(format!("the transaction begun at {slot}")),
            _ => {
                let open = open.iter().map(|(tx, _)| tx);
                recorded_of(backend, open).await?.first().map(|tx| format!("transaction {tx}"))
            }
        };
        if let Some(applied) = applied {
            anyhow::bail!(
                "database \"{database}\" holds {applied}, whose commit is not in the journal, which ends at {delivered}: the journal is older \
                 than the data, and what this replica promised to others since is lost, so it must not go on; restore the journal that \
                 belongs to the data, or rebuild this replica"
            );
        }
    }
    Ok(())
}

/// The payload of a request.
pub(super) fn request_payload(request: &Request) -> &[u8] {
    request.payload()
}
