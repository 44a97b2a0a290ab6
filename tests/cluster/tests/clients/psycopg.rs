//! psycopg 2 or 3, whichever there is: a script of its own, psycopg.py.

use steeldb_cluster_tests::{Cluster, python_with_psycopg};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psycopg_works_as_on_one_server() {
    let python = python_with_psycopg().await.unwrap_or_else(|missing| panic!("{missing}"));
    let mut cluster = Cluster::start(4).await.unwrap();
    let proxy = cluster.proxy().await.unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/psycopg.py");
    let said = proxy.program(python.to_str().unwrap()).args(&[script]).run().await;
    assert!(said.status == 0 && said.out.ends_with(" ok\n"), "{}{}", said.out, said.err);
    proxy.identical().await;
}
