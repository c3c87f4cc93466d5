//! No crate has a cycle in its module graph: no file uses an item of a file that, directly or through others, uses an
//! item of the first. So each file can be read, moved and tested with nothing but the files below it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::{Attribute, Item, UseTree, Visibility};

use crate::generated_docs::workspace_root;

/// Each crate and program with several files: its folder, and its root file.
///
/// The crate `entity` is not listed. Its files are generated, one for each table, and two tables that are related refer
/// to each other.
const ROOTS: [(&str, &str); 11] = [
    ("bench/src", "main.rs"),
    ("examples/live_session", "main.rs"),
    ("migration/src", "lib.rs"),
    ("migration/tests/program", "main.rs"),
    ("rls/src", "lib.rs"),
    ("rls/tests", "main.rs"),
    ("service/src", "lib.rs"),
    ("testdb/src", "lib.rs"),
    ("testdb/src/bin/mutants", "main.rs"),
    ("tests", "main.rs"),
    ("tests/outside/src", "main.rs"),
];

/// The names of the modules from the root to a module. The root's own path is empty.
type ModulePath = Vec<String>;

/// What a file of a crate defines and uses.
#[derive(Default)]
struct Module {
    definitions: BTreeSet<String>,
    imports: Vec<Import>,
    /// The names and paths (`a::b`) that occur outside of imports, each as its segments.
    names: Vec<Vec<String>>,
}

struct Import {
    /// The name under which the file knows the item: its last segment, or what follows `as`; `*` for a glob.
    name: String,
    path: Vec<String>,
    is_public: bool,
}

struct Graph {
    modules: BTreeMap<ModulePath, Module>,
}

impl Graph {
    fn read(root: &str, root_file: &str) -> Self {
        let mut modules = BTreeMap::new();
        read_folder(&workspace_root().join(root), &[], root_file, &mut modules);
        Self { modules }
    }

    /// Returns the path from the root. `None` if the path does not begin in this crate.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let supers = path.iter().take_while(|name| *name == "super").count();
        let (start, rest) = match path.first()?.as_str() {
            "crate" => (0, &path[1..]),
            "self" => (module.len(), &path[1..]),
            "super" => (module.len().checked_sub(supers)?, &path[supers..]),
            child => {
                let child_path = [module, &[child.to_owned()]].concat();
                return self.modules.contains_key(&child_path).then(|| [module, path].concat());
            }
        };
        Some([&module[..start], rest].concat())
    }

    /// Returns the module that defines the item. Follows imports: an item may have a path through a module that only
    /// re-exports it.
    fn defining_module(&self, path: &[String], max_imports: usize) -> ModulePath {
        let depth = (0..=path.len()).rev().find(|depth| self.modules.contains_key(&path[..*depth])).unwrap_or(0);
        let (module_path, rest) = path.split_at(depth);
        let (Some(module), Some(name)) = (self.modules.get(module_path), rest.first()) else {
            return module_path.to_vec();
        };
        let import = module.imports.iter().find(|import| import.name == *name);
        match import.and_then(|import| self.absolute(module_path, &import.path)) {
            Some(target) if !module.definitions.contains(name) && max_imports > 0 => {
                self.defining_module(&[&target, &rest[1..]].concat(), max_imports - 1)
            }
            _ => module_path.to_vec(),
        }
    }

    /// Returns the modules that a module uses, each with one of the names. A `pub use` of an item that the file itself
    /// does not use is no use. (Clippy refuses other imports that are not used.)
    fn used_modules(&self, module_path: &[String], module: &Module) -> BTreeMap<ModulePath, String> {
        let mut used = BTreeMap::new();
        let mut add = |path: &[String]| {
            let target = self.defining_module(path, 8);
            if target != module_path {
                used.insert(target, path.last().cloned().unwrap_or_default());
            }
        };
        for import in &module.imports {
            let Some(path) = self.absolute(module_path, &import.path) else { continue };
            let mut uses = module.names.iter().filter(|name| name[0] == import.name).peekable();
            if import.is_public && uses.peek().is_none() {
                continue;
            }
            if self.modules.contains_key(&path) && import.name != "*" {
                uses.filter(|name| name.len() > 1).for_each(|name| add(&[&path, &name[1..]].concat()));
            } else {
                add(&path);
            }
        }
        for name in module.names.iter().filter(|name| name.len() > 1) {
            let is_imported = module.imports.iter().any(|import| import.name == name[0]);
            if let Some(path) = self.absolute(module_path, name).filter(|_| !is_imported) {
                add(&path);
            }
        }
        used
    }

    /// Returns a cycle, as lines of the form `a uses x of b`.
    fn find_cycle(&self) -> Option<Vec<String>> {
        let edges: BTreeMap<&ModulePath, BTreeMap<ModulePath, String>> =
            self.modules.iter().map(|(path, module)| (path, self.used_modules(path, module))).collect();
        let mut finished = BTreeSet::new();
        self.modules.keys().find_map(|start| find_cycle_from(start, &edges, &mut Vec::new(), &mut finished))
    }
}

/// Follows the edges depth first. `trail` has the modules on the way to this one.
fn find_cycle_from(
    module: &ModulePath,
    edges: &BTreeMap<&ModulePath, BTreeMap<ModulePath, String>>,
    trail: &mut Vec<ModulePath>,
    finished: &mut BTreeSet<ModulePath>,
) -> Option<Vec<String>> {
    if let Some(start) = trail.iter().position(|earlier| earlier == module) {
        let display = |path: &ModulePath| if path.is_empty() { "the root".to_owned() } else { path.join("::") };
        let cycle = [&trail[start..], std::slice::from_ref(module)].concat();
        return Some(
            cycle
                .windows(2)
                .map(|pair| {
                    format!("{} uses {} of {}", display(&pair[0]), edges[&pair[0]][&pair[1]], display(&pair[1]))
                })
                .collect(),
        );
    }
    if finished.contains(module) {
        return None;
    }
    trail.push(module.clone());
    let cycle = edges.get(module)?.keys().find_map(|next| find_cycle_from(next, edges, trail, finished));
    trail.pop();
    finished.insert(module.clone());
    cycle
}

/// Reads the files of a folder and its subfolders. Files named `tests.rs` have only tests. Folders without Rust files
/// and programs (`bin`) are not modules of the crate.
fn read_folder(folder: &Path, module_path: &[String], root_file: &str, modules: &mut BTreeMap<ModulePath, Module>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["bin", "outside"].contains(&&*name) {
                read_folder(&path, &[module_path, &[stem]].concat(), "mod.rs", modules);
            }
        } else if name == root_file || name.ends_with(".rs") && !["main.rs", "mod.rs", "tests.rs"].contains(&&*name) {
            let own_path = if name == root_file { module_path.to_vec() } else { [module_path, &[stem]].concat() };
            let mut module = Module::default();
            let file = syn::parse_file(&fs::read_to_string(&path).unwrap()).unwrap();
            read_items(&file.items, 0, &mut module);
            modules.insert(own_path, module);
        }
    }
}

/// Reads items, except those that exist only in tests. `depth` is the number of inline modules around the items.
fn read_items(items: &[Item], depth: usize, module: &mut Module) {
    for item in items {
        let (attributes, name): (&[Attribute], _) = match item {
            Item::Use(item) => (&item.attrs, None),
            Item::Mod(item) => (&item.attrs, None),
            Item::Fn(item) => (&item.attrs, Some(&item.sig.ident)),
            Item::Struct(item) => (&item.attrs, Some(&item.ident)),
            Item::Enum(item) => (&item.attrs, Some(&item.ident)),
            Item::Trait(item) => (&item.attrs, Some(&item.ident)),
            Item::Type(item) => (&item.attrs, Some(&item.ident)),
            Item::Const(item) => (&item.attrs, Some(&item.ident)),
            Item::Static(item) => (&item.attrs, Some(&item.ident)),
            Item::Macro(item) => (&item.attrs, item.ident.as_ref()),
            Item::Impl(item) => (&item.attrs, None),
            _ => (&[], None),
        };
        if attributes.iter().any(|attribute| attribute.to_token_stream().to_string().contains("cfg (test)")) {
            continue;
        }
        module.definitions.extend(name.map(ToString::to_string));
        match item {
            // With a leading `::`, the path is that of another crate.
            Item::Use(item) if item.leading_colon.is_some() => {}
            Item::Use(item) => {
                read_use_tree(&item.tree, &[], !matches!(item.vis, Visibility::Inherited), depth, module);
            }
            Item::Mod(item) => {
                if let Some((_, items)) = &item.content {
                    module.definitions.insert(item.ident.to_string());
                    read_items(items, depth + 1, module);
                }
            }
            item => read_names(item.to_token_stream(), depth, module),
        }
    }
}

/// Removes one leading `super` for each inline module around the path.
fn without_inline_modules(path: Vec<String>, depth: usize) -> Vec<String> {
    let supers = path.iter().take(depth).take_while(|name| *name == "super").count();
    if supers == 0 { path } else { [&["self".to_owned()], &path[supers..]].concat() }
}

fn read_use_tree(tree: &UseTree, prefix: &[String], is_public: bool, depth: usize, module: &mut Module) {
    let mut add = |segment: &str, name: &str| {
        let mut path = prefix.to_vec();
        if segment != "self" && segment != "*" {
            path.push(segment.to_owned());
        }
        let name = if name == "self" { path.last().cloned().unwrap_or_default() } else { name.to_owned() };
        module.imports.push(Import { name, path: without_inline_modules(path, depth), is_public });
    };
    match tree {
        UseTree::Path(tree) => {
            let prefix = [prefix, &[tree.ident.to_string()]].concat();
            read_use_tree(&tree.tree, &prefix, is_public, depth, module);
        }
        UseTree::Name(tree) => add(&tree.ident.to_string(), &tree.ident.to_string()),
        UseTree::Rename(tree) => add(&tree.ident.to_string(), &tree.rename.to_string()),
        UseTree::Glob(_) => add("*", "*"),
        UseTree::Group(group) => {
            group.items.iter().for_each(|tree| read_use_tree(tree, prefix, is_public, depth, module));
        }
    }
}

/// Reads the names and paths in the text of an item, including the text of macro calls.
fn read_names(tokens: TokenStream, depth: usize, module: &mut Module) {
    let mut path: Vec<String> = Vec::new();
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Ident(name) => {
                if colons != 2 && !path.is_empty() {
                    module.names.push(without_inline_modules(std::mem::take(&mut path), depth));
                }
                path.push(name.to_string());
                colons = 0;
                continue;
            }
            TokenTree::Punct(mark) if mark.as_char() == ':' => {
                colons += 1;
                continue;
            }
            TokenTree::Group(group) => read_names(group.stream(), depth, module),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
        colons = 0;
        if !path.is_empty() {
            module.names.push(without_inline_modules(std::mem::take(&mut path), depth));
        }
    }
    if !path.is_empty() {
        module.names.push(without_inline_modules(path, depth));
    }
}

#[test]
fn no_module_graph_has_a_cycle() {
    for (root, root_file) in ROOTS {
        let graph = Graph::read(root, root_file);
        assert!(graph.modules.len() > 1, "{root} has no modules");
        if let Some(cycle) = graph.find_cycle() {
            panic!("{root}:\n{}", cycle.join("\n"));
        }
    }
}
