//! Imports between files, from the modules of each package and the paths in them.
//!
//! Names are followed through `use` and `pub use` to the file that defines them, so a re-export is no dependency of the
//! file that contains it. Test code (`cfg(test)`) is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

/// The path of a module: the package's name, then the names of the modules.
type ModulePath = Vec<String>;

/// The modules of some packages.
#[derive(Debug, Default)]
pub(crate) struct SourceTree {
    modules: BTreeMap<ModulePath, Module>,
    packages: BTreeSet<String>,
}

#[derive(Debug)]
struct Module {
    file: PathBuf,
    /// Names that `use` imports, and their origins.
    imports: BTreeMap<String, ModulePath>,
    /// Modules imported by a glob.
    globs: Vec<ModulePath>,
    /// Paths in its code.
    paths: BTreeSet<ModulePath>,
}

/// An import of `name` by one file from another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Import {
    pub(crate) from: PathBuf,
    pub(crate) to: PathBuf,
    pub(crate) name: String,
}

/// Maximum length of a chain of re-exports.
const DEPTH: usize = 16;

impl SourceTree {
    /// Reads packages, each given by its name and its root file.
    pub(crate) fn read(root: &Path, packages: &[(String, PathBuf)]) -> Self {
        let mut tree = Self::default();
        for (name, first) in packages {
            tree.packages.insert(name.clone());
            tree.read_file(root, first, vec![name.clone()], true);
        }
        tree
    }

    fn read_file(&mut self, root: &Path, file: &Path, place: ModulePath, owns_folder: bool) {
        let text = std::fs::read_to_string(root.join(file))
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let parsed =
            syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let parent = file.parent().expect("a folder");
        let folder = if owns_folder {
            parent.to_owned()
        } else {
            parent.join(file.file_stem().expect("a name"))
        };
        let reading = SourceFile {
            root,
            file,
            folder: &folder,
        };
        self.read_items(&reading, place, &parsed.items);
    }

    fn read_items(&mut self, reading: &SourceFile<'_>, place: ModulePath, items: &[Item]) {
        let mut module = Module {
            file: reading.file.to_owned(),
            imports: BTreeMap::new(),
            globs: Vec::new(),
            paths: BTreeSet::new(),
        };
        for item in items {
            match item {
                Item::Mod(found) if is_test(&found.attrs) => {}
                Item::Mod(found) => self.read_module(reading, &place, found),
                Item::Use(found) if is_test(&found.attrs) => {}
                Item::Use(found) => module.add_use(found),
                item => {
                    let mut paths = Paths(&mut module.paths);
                    paths.visit_item(item);
                }
            }
        }
        self.modules.insert(place, module);
    }

    fn read_module(&mut self, reading: &SourceFile<'_>, place: &ModulePath, found: &ItemMod) {
        let name = found.ident.to_string();
        let mut place = place.clone();
        place.push(name.clone());
        if let Some((_, items)) = &found.content {
            let folder = reading.folder.join(&name);
            let reading = SourceFile {
                folder: &folder,
                ..*reading
            };
            return self.read_items(&reading, place, items);
        }
        let beside = reading.file.parent().expect("a folder");
        if let Some(path) = path_of(&found.attrs) {
            return self.read_file(reading.root, &beside.join(path), place, true);
        }
        let flat = reading.folder.join(format!("{name}.rs"));
        if reading.root.join(&flat).is_file() {
            self.read_file(reading.root, &flat, place, false);
        } else {
            let nested = reading.folder.join(&name).join("mod.rs");
            // Generated code lies elsewhere.
            if reading.root.join(&nested).is_file() {
                self.read_file(reading.root, &nested, place, true);
            }
        }
    }

    /// The imports between files.
    pub(crate) fn imports(&self) -> BTreeSet<Import> {
        let mut imports = BTreeSet::new();
        for (place, module) in &self.modules {
            for path in &module.paths {
                let Some(found) = self.resolve(place, path, DEPTH) else {
                    continue;
                };
                let to = &self.modules[&found].file;
                if *to != module.file {
                    imports.insert(Import {
                        from: module.file.clone(),
                        to: to.clone(),
                        name: path.last().cloned().unwrap_or_default(),
                    });
                }
            }
        }
        imports
    }

    /// The module that defines `path`, as seen from the module at `place`.
    fn resolve(&self, place: &ModulePath, path: &[String], depth: usize) -> Option<ModulePath> {
        let (head, rest) = path.split_first()?;
        let depth = depth.checked_sub(1)?;
        let start = match head.as_str() {
            "crate" => vec![place.first()?.clone()],
            "self" => place.clone(),
            "super" => place.split_last()?.1.to_vec(),
            name if self.packages.contains(name) && self.local(place, name).is_none() => {
                vec![name.to_owned()]
            }
            name => return self.member(place, name, rest, depth),
        };
        self.descend(&start, rest, depth)
    }

    /// The module or import of this name in the module at `place`.
    fn local(&self, place: &ModulePath, name: &str) -> Option<ModulePath> {
        let mut child = place.clone();
        child.push(name.to_owned());
        if self.modules.contains_key(&child) {
            return Some(child);
        }
        self.modules.get(place)?.imports.get(name).cloned()
    }

    fn descend(&self, place: &ModulePath, path: &[String], depth: usize) -> Option<ModulePath> {
        let Some((head, rest)) = path.split_first() else {
            return self.modules.contains_key(place).then(|| place.clone());
        };
        if head == "super" {
            return self.descend(&place.split_last()?.1.to_vec(), rest, depth);
        }
        self.modules.get(place)?;
        let found = self.member(place, head, rest, depth);
        found.or_else(|| Some(place.clone()))
    }

    fn member(
        &self,
        place: &ModulePath,
        name: &str,
        rest: &[String],
        depth: usize,
    ) -> Option<ModulePath> {
        let depth = depth.checked_sub(1)?;
        let module = self.modules.get(place)?;
        let mut child = place.clone();
        child.push(name.to_owned());
        if self.modules.contains_key(&child) {
            return self.descend(&child, rest, depth);
        }
        if let Some(origin) = module.imports.get(name) {
            let path: ModulePath = origin.iter().chain(rest).cloned().collect();
            // An import may have the name of its own first segment: `use tokio::sync; sync::...`.
            if origin.first().is_some_and(|head| head != name) || origin.len() > 1 {
                return self.resolve_import(place, &path, depth);
            }
        }
        for glob in &module.globs {
            let path: ModulePath = glob.iter().cloned().chain([name.to_owned()]).collect();
            let found = self.resolve(place, &path, depth);
            let through = self.resolve(place, glob, depth);
            if found.is_some() && found != through {
                return found;
            }
        }
        None
    }

    /// Like [`resolve`](Self::resolve), for the path of a `use`, whose head is never an import of the same name.
    fn resolve_import(
        &self,
        place: &ModulePath,
        path: &[String],
        depth: usize,
    ) -> Option<ModulePath> {
        let (head, rest) = path.split_first()?;
        match head.as_str() {
            "crate" | "self" | "super" => self.resolve(place, path, depth),
            name if self.packages.contains(name) => {
                self.descend(&vec![name.to_owned()], rest, depth)
            }
            name => {
                let mut child = place.clone();
                child.push(name.to_owned());
                let is_child = self.modules.contains_key(&child);
                is_child.then(|| self.descend(&child, rest, depth))?
            }
        }
    }
}

/// The file being read, and the folder of its modules.
#[derive(Debug, Clone, Copy)]
struct SourceFile<'a> {
    root: &'a Path,
    file: &'a Path,
    folder: &'a Path,
}

impl Module {
    fn add_use(&mut self, found: &ItemUse) {
        // A re-export is a dependency only of the files that use it.
        let is_reexport = !matches!(found.vis, Visibility::Inherited);
        self.add_use_tree(&mut Vec::new(), &found.tree, is_reexport);
    }

    fn add_use_tree(&mut self, prefix: &mut ModulePath, tree: &UseTree, is_reexport: bool) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_use_tree(prefix, &path.tree, is_reexport);
                prefix.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.add_use_tree(prefix, tree, is_reexport);
                }
            }
            UseTree::Name(name) => {
                let name = name.ident.to_string();
                self.import(prefix, &name, &name, is_reexport);
            }
            UseTree::Rename(rename) => {
                let (from, to) = (rename.ident.to_string(), rename.rename.to_string());
                self.import(prefix, &from, &to, is_reexport);
            }
            UseTree::Glob(_) => self.globs.push(prefix.clone()),
        }
    }

    fn import(&mut self, prefix: &ModulePath, from: &str, to: &str, is_reexport: bool) {
        let mut origin = prefix.clone();
        // `use a::{self}` is `use a`.
        if from != "self" {
            origin.push(from.to_owned());
        }
        let name = match (from, to) {
            ("self", "self") => prefix.last().cloned().unwrap_or_default(),
            _ => to.to_owned(),
        };
        // A lower-case name is a module or function; the paths that begin with it say which item is used.
        let is_module = name.chars().next().is_some_and(char::is_lowercase);
        if !is_reexport && !is_module {
            self.paths.insert(origin.clone());
        }
        self.imports.insert(name, origin);
    }
}

/// Collects the paths in code, including those inside macros.
struct Paths<'a>(&'a mut BTreeSet<ModulePath>);

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter();
        self.0
            .insert(segments.map(|segment| segment.ident.to_string()).collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, found: &'ast syn::Macro) {
        self.add_tokens(found.tokens.clone());
        syn::visit::visit_macro(self, found);
    }

    /// `pub(super)` imports nothing.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_item_mod(&mut self, _: &'ast ItemMod) {}

    fn visit_item_use(&mut self, _: &'ast ItemUse) {}
}

impl Paths<'_> {
    fn add_tokens(&mut self, tokens: TokenStream) {
        let mut path: ModulePath = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end(&mut path);
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.end(&mut path);
                    self.add_tokens(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => self.end(&mut path),
            }
        }
        self.end(&mut path);
    }

    fn end(&mut self, path: &mut ModulePath) {
        let path = std::mem::take(path);
        if !path.is_empty() {
            self.0.insert(path);
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let tokens = || quote_of(attribute);
        attribute.path().is_ident("cfg")
            && tokens()
                .split(|c: char| !c.is_alphanumeric())
                .any(|word| word == "test")
    })
}

fn quote_of(attribute: &Attribute) -> String {
    match &attribute.meta {
        syn::Meta::List(list) => list.tokens.to_string(),
        syn::Meta::Path(_) | syn::Meta::NameValue(_) => String::new(),
    }
}

fn path_of(attributes: &[Attribute]) -> Option<String> {
    attributes
        .iter()
        .find_map(|attribute| match &attribute.meta {
            syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
                syn::Expr::Lit(syn::ExprLit {
                    lit: syn::Lit::Str(text),
                    ..
                }) => Some(text.value()),
                _ => None,
            },
            _ => None,
        })
}
