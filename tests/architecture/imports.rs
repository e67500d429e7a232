//! Which file of the crate imports which.
//!
//! A file imports another when one of its paths names a definition in it; re-exports are followed to the file that has the
//! definition, so a `mod.rs` that only declares and re-exports is never imported. Test code does not count.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Source, paths, use_declarations};

/// The files of the crate, their `use` declarations and their paths.
pub(crate) struct Imports {
    /// The file of each module.
    files: BTreeMap<Vec<String>, File>,
}

struct File {
    path: String,
    /// The paths behind each name of a `use`; several when `cfg` selects one.
    names: BTreeMap<String, Vec<Vec<String>>>,
    /// All paths of at least two segments.
    paths: Vec<Vec<String>>,
}

/// Limits the length of a chain of re-exports.
const MAX_REEXPORTS: usize = 16;

impl Imports {
    pub(crate) fn new(sources: &[Source]) -> Self {
        let mut files = BTreeMap::new();
        for source in sources.iter().filter(|source| source.path != "src/main.rs") {
            let source = source.without_tests();
            if source.tokens.is_empty() {
                continue;
            }
            let mut names: BTreeMap<_, Vec<_>> = BTreeMap::new();
            for (path, name) in use_declarations(&source.tokens) {
                names.entry(name).or_default().push(path);
            }
            let paths = paths(&source.tokens).into_iter().filter(|path| path.len() > 1).collect();
            let module = source.module().into_iter().map(str::to_owned).collect();
            files.insert(module, File { path: source.path, names, paths });
        }
        Self { files }
    }

    /// For each file, the other files whose definitions it uses.
    pub(crate) fn graph(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let edges = self.files.iter().map(|(module, file)| {
            let used = file.paths.iter().flat_map(|path| self.definitions(module, path, MAX_REEXPORTS));
            (file.path.as_str(), used.filter(|used| *used != file.path).collect())
        });
        edges.collect()
    }

    /// The files that define what `path` names in `module`; none when it is not of this crate.
    fn definitions(&self, module: &[String], path: &[String], reexports: usize) -> Vec<&str> {
        let Some(reexports) = reexports.checked_sub(1) else { return Vec::new() };
        let supers = path.iter().take_while(|name| *name == "super").count();
        let (mut at, rest) = match path.first().map(String::as_str) {
            Some("crate") => (Vec::new(), &path[1..]),
            Some("self") => (module.to_vec(), &path[1..]),
            Some("super") => (module[..module.len().saturating_sub(supers)].to_vec(), &path[supers..]),
            Some(first) => {
                if let Some(meanings) = self.files.get(module).and_then(|file| file.names.get(first)) {
                    let whole = meanings.iter().map(|meaning| [meaning, &path[1..]].concat());
                    let whole = whole.filter(|whole| whole != path);
                    return whole.flat_map(|path| self.definitions(module, &path, reexports)).collect();
                }
                (module.to_vec(), path)
            }
            None => return Vec::new(),
        };
        let is_relative = rest.len() == path.len();
        for (index, name) in rest.iter().enumerate() {
            let child = [&at[..], std::slice::from_ref(name)].concat();
            let reexported = self.files.get(&at).and_then(|file| file.names.get(name));
            let is_last = index + 1 == rest.len();
            if self.files.contains_key(&child) && !(is_last && reexported.is_some()) {
                at = child;
                continue;
            }
            if is_relative && index == 0 {
                return Vec::new();
            }
            let file = self.files.get(&at);
            let Some(meanings) = reexported.filter(|_| at != module) else {
                return file.map(|file| file.path.as_str()).into_iter().collect();
            };
            let whole = meanings.iter().map(|meaning| [meaning, &rest[index + 1..]].concat());
            return whole.flat_map(|path| self.definitions(&at, &path, reexports)).collect();
        }
        // The path names a module; longer paths name what is used of it.
        Vec::new()
    }
}

/// One shortest cycle through each group of files that reach each other, as `a → b → a`.
pub(crate) fn cycles(graph: &BTreeMap<&str, BTreeSet<&str>>) -> Vec<String> {
    let mut found = Vec::new();
    let mut known: BTreeSet<&str> = BTreeSet::new();
    for start in graph.keys() {
        if known.contains(start) {
            continue;
        }
        if let Some(cycle) = shortest_cycle(graph, start) {
            known.extend(&cycle);
            found.push(cycle.join(" → "));
        }
    }
    found
}

fn shortest_cycle<'a>(graph: &BTreeMap<&'a str, BTreeSet<&'a str>>, start: &'a str) -> Option<Vec<&'a str>> {
    let mut routes = vec![vec![start]];
    let mut seen = BTreeSet::new();
    let mut index = 0;
    while let Some(route) = routes.get(index).cloned() {
        index += 1;
        for next in graph.get(route.last()?).into_iter().flatten() {
            let route = [&route[..], &[*next]].concat();
            if *next == start {
                return Some(route);
            }
            if seen.insert(*next) {
                routes.push(route);
            }
        }
    }
    None
}
