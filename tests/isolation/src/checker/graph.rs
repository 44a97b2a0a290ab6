//! The arrows between starts and commits, and the shortest ways back along them.
//!
//! Real-time order would take an arrow for each pair of transactions. Instead the acknowledgements, in their order in
//! time, make a chain: each commit leads to its own acknowledgement, each acknowledgement to the next one, and the last
//! one before a start to that start.

use super::edges::{Edge, EdgeKind};
use crate::history::{History, Outcome};
use std::collections::VecDeque;

/// A start, a commit, or an acknowledgement in the chain.
type Node = usize;

/// An arrow.
#[derive(Clone, Copy)]
struct Arrow {
    to: Node,
    /// The dependency that it stands for, by number.
    edge: Option<usize>,
    /// Whether a step along it counts: arrows inside a transaction, and along the chain, are free.
    counts: bool,
}

/// Starts, commits, and the arrows between them.
pub(super) struct Graph {
    arrows: Vec<Vec<Arrow>>,
    transactions: usize,
}

/// A step of a cycle: a dependency by number, or from one transaction to another by real time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    Edge(usize),
    RealTime(usize, usize),
}

impl Graph {
    /// The graph of the dependencies that `allowed` lets in.
    pub(super) fn new(count: usize, edges: &[Edge<'_>], allowed: impl Fn(EdgeKind) -> bool) -> Graph {
        let mut graph = Graph { arrows: vec![Vec::new(); 2 * count], transactions: count };
        for transaction in 0..count {
            graph.add(start(transaction), commit(transaction), None, false);
        }
        for (number, edge) in edges.iter().enumerate().filter(|(_, edge)| allowed(edge.kind)) {
            let (from, to) = ends(edge);
            graph.add(from, to, Some(number), true);
        }
        graph
    }

    /// Adds the chain of acknowledgements, for the transactions that took effect.
    pub(super) fn add_real_time(&mut self, history: &History, effective: impl Iterator<Item = usize>) {
        let transactions = history.transactions();
        let effective: Vec<usize> = effective.collect();
        let acknowledged = |index: &&usize| transactions[**index].outcome == Outcome::Committed;
        let mut chain: Vec<(u64, usize)> = effective
            .iter()
            .filter(acknowledged)
            .map(|index| (transactions[*index].end_us, *index))
            .collect();
        chain.sort_unstable();
        let first = self.arrows.len();
        self.arrows.resize(first + chain.len(), Vec::new());
        for (place, (_, transaction)) in chain.iter().enumerate() {
            self.add(commit(*transaction), first + place, None, false);
            if place + 1 < chain.len() {
                self.add(first + place, first + place + 1, None, false);
            }
        }
        for index in effective {
            // Strictly before: what happened in the same microsecond has no order.
            let before = chain.partition_point(|(end_us, _)| *end_us < transactions[index].begin_us);
            if before > 0 {
                self.add(first + before - 1, start(index), None, true);
            }
        }
    }

    fn add(&mut self, from: Node, to: Node, edge: Option<usize>, counts: bool) {
        self.arrows[from].push(Arrow { to, edge, counts });
    }

    /// For each node the number of its strongly connected component (Tarjan), without recursion: a history may be one
    /// long component.
    pub(super) fn components(&self) -> Components {
        const UNSEEN: usize = usize::MAX;
        let nodes = self.arrows.len();
        let (mut number, mut low) = (vec![UNSEEN; nodes], vec![0; nodes]);
        let (mut component, mut components, mut seen) = (vec![UNSEEN; nodes], 0, 0);
        let (mut open, mut work) = (Vec::new(), Vec::new());
        for root in 0..nodes {
            if number[root] != UNSEEN {
                continue;
            }
            work.push((root, 0));
            while let Some((node, next)) = work.pop() {
                if next == 0 {
                    (number[node], low[node]) = (seen, seen);
                    seen += 1;
                    open.push(node);
                } else {
                    let child = self.arrows[node][next - 1].to;
                    if component[child] == UNSEEN {
                        low[node] = low[node].min(low[child]);
                    }
                }
                let mut descended = false;
                for (index, arrow) in self.arrows[node].iter().enumerate().skip(next) {
                    if number[arrow.to] == UNSEEN {
                        work.push((node, index + 1));
                        work.push((arrow.to, 0));
                        descended = true;
                        break;
                    }
                    if component[arrow.to] == UNSEEN {
                        low[node] = low[node].min(number[arrow.to]);
                    }
                }
                if descended || low[node] != number[node] {
                    continue;
                }
                while let Some(member) = open.pop() {
                    component[member] = components;
                    if member == node {
                        break;
                    }
                }
                components += 1;
            }
        }
        Components(component)
    }

    /// The cycle through a dependency that has the fewest steps, itself first.
    pub(super) fn cycle(
        &self,
        edges: &[Edge<'_>],
        number: usize,
        components: &Components,
    ) -> Option<Vec<Step>> {
        let (goal, source) = ends(&edges[number]);
        if !components.together(goal, source) {
            return None;
        }
        // From whom, and by which dependency, each node is reached in the fewest steps.
        let mut came: Vec<Option<(Node, Option<usize>)>> = vec![None; self.arrows.len()];
        let mut distance = vec![usize::MAX; self.arrows.len()];
        let mut queue = VecDeque::from([source]);
        distance[source] = 0;
        while let Some(node) = queue.pop_front() {
            if node == goal {
                break;
            }
            for arrow in self.arrows[node].iter().filter(|arrow| components.together(arrow.to, source)) {
                let steps = distance[node] + usize::from(arrow.counts);
                if steps < distance[arrow.to] {
                    distance[arrow.to] = steps;
                    came[arrow.to] = Some((node, arrow.edge));
                    match arrow.counts {
                        true => queue.push_back(arrow.to),
                        false => queue.push_front(arrow.to),
                    }
                }
            }
        }
        let mut steps = Vec::new();
        let mut node = goal;
        // The transaction that the way along the chain leads to, while it is followed backwards.
        let mut chained: Option<usize> = None;
        while node != source {
            let (from, edge) = came[node]?;
            steps.extend(edge.map(Step::Edge));
            if self.in_chain(from) && !self.in_chain(node) {
                chained = Some(node / 2);
            }
            if self.in_chain(node)
                && !self.in_chain(from)
                && let Some(to) = chained.take()
            {
                steps.push(Step::RealTime(from / 2, to));
            }
            node = from;
        }
        steps.push(Step::Edge(number));
        steps.reverse();
        Some(steps)
    }

    fn in_chain(&self, node: Node) -> bool {
        node >= 2 * self.transactions
    }
}

/// Strongly connected components by node.
pub(super) struct Components(Vec<usize>);

impl Components {
    fn together(&self, one: Node, other: Node) -> bool {
        self.0[one] == self.0[other]
    }

    /// The component of a dependency that is in a cycle.
    pub(super) fn of(&self, edge: &Edge<'_>) -> Option<usize> {
        let (from, to) = ends(edge);
        self.together(from, to).then_some(self.0[from])
    }
}

fn start(transaction: usize) -> Node {
    2 * transaction
}

fn commit(transaction: usize) -> Node {
    2 * transaction + 1
}

fn ends(edge: &Edge<'_>) -> (Node, Node) {
    match edge.kind {
        EdgeKind::ReadWrite => (start(edge.from), commit(edge.to)),
        _ => (commit(edge.from), start(edge.to)),
    }
}
