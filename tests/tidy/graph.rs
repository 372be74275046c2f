//! Files or folders, what they take from each other, and the circles in that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::modules::{Arrow, House};

/// Places by what they take from others, and by which names.
#[derive(Debug, Default)]
pub(crate) struct Graph(BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>);

impl Graph {
    pub(crate) fn of_files(house: &House) -> Self {
        Self::of(house.arrows())
    }

    /// By the folder that a file is in; a folder's parts belong to it. The files of the root are by themselves.
    pub(crate) fn of_folders(house: &House) -> Self {
        let room = |file: &Path| {
            let parts: Vec<_> = file.components().collect();
            let src = parts.iter().position(|part| part.as_os_str() == "src");
            let depth = src.map_or(0, |src| src + 2);
            parts.iter().take(depth).collect()
        };
        let arrows = house.arrows().into_iter().map(|arrow| Arrow {
            from: room(&arrow.from),
            to: room(&arrow.to),
            name: format!("{} -> {}", arrow.from.display(), arrow.name),
        });
        Self::of(arrows.filter(|arrow| arrow.from != arrow.to).collect())
    }

    fn of(arrows: BTreeSet<Arrow>) -> Self {
        let mut graph = Self::default();
        for Arrow { from, to, name } in arrows {
            graph.0.entry(to.clone()).or_default();
            let names = graph.0.entry(from).or_default().entry(to).or_default();
            names.insert(name);
        }
        graph
    }

    /// The sets of places each of which reaches every other.
    pub(crate) fn circles(&self) -> Vec<BTreeSet<PathBuf>> {
        let reach: BTreeMap<&PathBuf, BTreeSet<&PathBuf>> = self
            .0
            .keys()
            .map(|place| (place, self.reached(place)))
            .collect();
        let mut circles: Vec<BTreeSet<PathBuf>> = Vec::new();
        for (place, reached) in &reach {
            let others = reached
                .iter()
                .filter(|other| reach[**other].contains(*place));
            let circle: BTreeSet<PathBuf> = others.map(|other| (*other).clone()).collect();
            if circle.len() > 1 && !circles.contains(&circle) {
                circles.push(circle);
            }
        }
        circles
    }

    fn reached(&self, place: &PathBuf) -> BTreeSet<&PathBuf> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<&PathBuf> = self.0[place].keys().collect();
        while let Some(place) = next.pop() {
            if reached.insert(place) {
                next.extend(self.0[place].keys());
            }
        }
        reached
    }

    /// The arrows of circles, for whoever has to break one.
    pub(crate) fn describe(&self, circles: &[BTreeSet<PathBuf>]) -> String {
        let mut text = String::new();
        for circle in circles {
            let _ = writeln!(text, "a circle of {}:", circle.len());
            for from in circle {
                for (to, names) in self.0[from].iter().filter(|(to, _)| circle.contains(*to)) {
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    let (from, to) = (from.display(), to.display());
                    let _ = writeln!(text, "  {from} takes from {to}: {}", names.join(", "));
                }
            }
        }
        text
    }
}
