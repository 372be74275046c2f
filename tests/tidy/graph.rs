//! The import graph of files or folders, and its cycles.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::modules::{Import, SourceTree};

/// For each file or folder, what it imports from which other one.
#[derive(Debug, Default)]
pub(crate) struct Graph(BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>);

impl Graph {
    pub(crate) fn of_files(tree: &SourceTree) -> Self {
        Self::of(tree.imports())
    }

    /// Groups files by their folder directly below `src`. Files in `src` itself stay separate.
    pub(crate) fn of_folders(tree: &SourceTree) -> Self {
        let folder = |file: &Path| {
            let parts: Vec<_> = file.components().collect();
            let src = parts.iter().position(|part| part.as_os_str() == "src");
            let depth = src.map_or(0, |src| src + 2);
            parts.iter().take(depth).collect()
        };
        let imports = tree.imports().into_iter().map(|import| Import {
            from: folder(&import.from),
            to: folder(&import.to),
            name: format!("{} -> {}", import.from.display(), import.name),
        });
        Self::of(imports.filter(|import| import.from != import.to).collect())
    }

    fn of(imports: BTreeSet<Import>) -> Self {
        let mut graph = Self::default();
        for Import { from, to, name } in imports {
            graph.0.entry(to.clone()).or_default();
            let names = graph.0.entry(from).or_default().entry(to).or_default();
            names.insert(name);
        }
        graph
    }

    /// The sets of nodes that all reach each other.
    pub(crate) fn cycles(&self) -> Vec<BTreeSet<PathBuf>> {
        let reach: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> = self
            .0
            .keys()
            .map(|node| (node, self.reached(node)))
            .collect();
        let mut cycles: Vec<BTreeSet<PathBuf>> = Vec::new();
        for (node, reached) in &reach {
            let others = reached
                .iter()
                .filter(|other| reach[**other].contains(*node));
            let cycle: BTreeSet<PathBuf> = others.map(|other| (*other).clone()).collect();
            if cycle.len() > 1 && !cycles.contains(&cycle) {
                cycles.push(cycle);
            }
        }
        cycles
    }

    fn reached(&self, node: &PathBuf) -> BTreeSet<&PathBuf> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&PathBuf> = self.0[node].keys().collect();
        while let Some(node) = next.pop() {
            if reached.insert(node) {
                next.extend(self.0[node].keys());
            }
        }
        reached
    }

    /// Describes the imports that form the cycles.
    pub(crate) fn describe(&self, cycles: &[BTreeSet<PathBuf>]) -> String {
        let mut text = String::new();
        for cycle in cycles {
            let _ = writeln!(text, "a cycle of {}:", cycle.len());
            for from in cycle {
                for (to, names) in self.0[from].iter().filter(|(to, _)| cycle.contains(*to)) {
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    let (from, to) = (from.display(), to.display());
                    let _ = writeln!(text, "  {from} imports from {to}: {}", names.join(", "));
                }
            }
        }
        text
    }
}
