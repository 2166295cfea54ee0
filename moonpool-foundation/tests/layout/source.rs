//! Reads Rust sources as far as the layout rules need it: module declarations and paths.
//!
//! This is no parser. It sees tokens, skips comments, strings and test modules, and follows
//! `crate::`, `self::` and `super::` paths and the crate's own re-exports.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::str::Chars;

/// A path through modules: `["network", "peer"]`.
pub(crate) type ModulePath = Vec<String>;

/// One source file, as its declarations and the paths it names.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// The module the file is.
    pub(crate) module: ModulePath,
    /// Modules declared with `mod name;`.
    pub(crate) children: Vec<Child>,
    /// Paths that start at the crate's root, made absolute, without the leading `crate`.
    pub(crate) imports: Vec<ModulePath>,
    /// `pub use`: the name it gets here, and the path it stands for. A `mod.rs` that re-exports its
    /// own children does not import them.
    pub(crate) reexports: Vec<(String, ModulePath)>,
    /// Every identifier outside test modules.
    pub(crate) identifiers: Vec<String>,
    /// Lines before the test module.
    pub(crate) lines: usize,
}

/// A `mod name;` line.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) name: String,
    /// Whether `#[cfg(feature = "sim")]` stands before it.
    pub(crate) needs_sim: bool,
    /// Whether `#[cfg(test)]` stands before it.
    pub(crate) is_test: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct Token {
    text: String,
    line: usize,
}

/// The module that the file at `path` (below `src/`) is.
pub(crate) fn module_of(path: &str) -> ModulePath {
    let path = path.trim_end_matches(".rs");
    let mut module: ModulePath = path.split('/').map(str::to_owned).collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    module
}

pub(crate) fn read(path: &str, text: &str) -> Source {
    let mut reader = Reader {
        tokens: tokens(text),
        at: 0,
        inline: Vec::new(),
        is_mod_file: path.ends_with("mod.rs") || path == "lib.rs",
        source: Source {
            module: module_of(path),
            lines: text.lines().count(),
            ..Source::default()
        },
    };
    reader.items();
    reader.source
}

/// All modules of a crate by path, to find out which module an item is defined in.
#[derive(Debug)]
pub(crate) struct Tree<'a>(pub(crate) BTreeMap<ModulePath, &'a Source>);

impl Tree<'_> {
    /// The module in which what `path` names is defined.
    pub(crate) fn defining_module(&self, path: &[String]) -> ModulePath {
        self.resolve(path, 0)
    }

    fn resolve(&self, path: &[String], depth: usize) -> ModulePath {
        let mut known = (0..=path.len()).rev();
        let len = known
            .find(|&len| self.0.contains_key(&path[..len]))
            .unwrap_or(0);
        let module = path[..len].to_vec();
        let Some(item) = path.get(len) else {
            return module;
        };
        let reexported = self
            .0
            .get(&module)
            .and_then(|source| source.reexports.iter().find(|(name, _)| name == item));
        match reexported {
            Some((_, target)) if depth < 8 && target != path => self.resolve(target, depth + 1),
            _ => module,
        }
    }
}

struct Reader {
    tokens: Vec<Token>,
    at: usize,
    /// Inline modules around the current token, with the brace depth inside each.
    inline: Vec<(String, usize)>,
    /// Whether the file may re-export what lies below it.
    is_mod_file: bool,
    source: Source,
}

impl Reader {
    fn peek(&self, ahead: usize) -> &str {
        self.tokens
            .get(self.at + ahead)
            .map_or("", |token| token.text.as_str())
    }

    fn items(&mut self) {
        let mut depth = 0;
        let mut attributes = String::new();
        let mut public = false;
        while self.at < self.tokens.len() {
            match self.peek(0) {
                "#" => {
                    attributes.push_str(&self.attribute());
                    continue;
                }
                "pub" => {
                    public = true;
                    self.at += 1;
                    if self.peek(0) == "(" {
                        self.skip_group();
                    }
                    continue;
                }
                "mod" if is_identifier(self.peek(1)) => self.module(&attributes, &mut depth),
                "use" => self.import(public),
                "crate" | "super" | "self" if self.peek(1) == "::" => self.inline_path(),
                "{" => {
                    depth += 1;
                    self.at += 1;
                }
                "}" => {
                    depth = depth.saturating_sub(1);
                    if self.inline.last().is_some_and(|(_, inner)| depth < *inner) {
                        self.inline.pop();
                    }
                    self.at += 1;
                }
                text => {
                    if is_identifier(text) {
                        let text = text.to_owned();
                        self.source.identifiers.push(text);
                    }
                    self.at += 1;
                }
            }
            attributes.clear();
            public = false;
        }
    }

    /// Consumes `#[..]` or `#![..]` and gives its tokens.
    fn attribute(&mut self) -> String {
        self.at += 1;
        if self.peek(0) == "!" {
            self.at += 1;
        }
        let start = self.at;
        self.skip_group();
        let tokens = &self.tokens[start..self.at];
        tokens.iter().map(|token| token.text.as_str()).collect()
    }

    /// Consumes a bracketed group, whatever its bracket.
    fn skip_group(&mut self) {
        let mut depth = 0_usize;
        while self.at < self.tokens.len() {
            match self.peek(0) {
                "{" | "[" | "(" => depth += 1,
                "}" | "]" | ")" => depth -= 1,
                _ => {}
            }
            self.at += 1;
            if depth == 0 {
                return;
            }
        }
    }

    fn module(&mut self, attributes: &str, depth: &mut usize) {
        let line = self.tokens[self.at].line;
        let name = self.peek(1).trim_start_matches("r#").to_owned();
        let is_test = attributes.contains("[cfg(test");
        let needs_sim = attributes.contains("[cfg(feature=\"sim\")]");
        self.at += 2;
        match (self.peek(0), is_test) {
            ("{", true) => {
                self.source.lines = self.source.lines.min(line);
                self.skip_group();
            }
            ("{", false) => {
                *depth += 1;
                self.inline.push((name, *depth));
                self.at += 1;
            }
            _ => self.source.children.push(Child {
                name,
                needs_sim,
                is_test,
            }),
        }
    }

    fn import(&mut self, public: bool) {
        self.at += 1;
        let mut leaves = Vec::new();
        self.use_tree(&Vec::new(), &mut leaves);
        for (name, path) in leaves {
            self.source.identifiers.extend(path.iter().cloned());
            let Some(path) = self.absolute(&path) else {
                continue;
            };
            let below = self.is_mod_file && path.starts_with(&self.source.module);
            if !(public && below) {
                self.source.imports.push(path.clone());
            }
            if public && self.inline.is_empty() {
                self.source.reexports.push((name, path));
            }
        }
    }

    /// Reads one branch of a `use` and gives each leaf with the name it is bound to.
    fn use_tree(&mut self, prefix: &[String], leaves: &mut Vec<(String, ModulePath)>) {
        let mut path = prefix.to_vec();
        loop {
            match self.peek(0) {
                "{" => {
                    self.at += 1;
                    while !matches!(self.peek(0), "}" | "") {
                        self.use_tree(&path, leaves);
                        if self.peek(0) == "," {
                            self.at += 1;
                        }
                    }
                    self.at += 1;
                    return;
                }
                "::" => self.at += 1,
                "as" => {
                    let name = self.peek(1).to_owned();
                    self.at += 2;
                    leaves.push((name, path));
                    return;
                }
                text if is_identifier(text) || text == "*" => {
                    let text = text.to_owned();
                    // `use a::{self}` names `a`.
                    if text != "self" || path.is_empty() {
                        path.push(text);
                    }
                    self.at += 1;
                }
                _ => {
                    let name = path.last().cloned().unwrap_or_default();
                    leaves.push((name, path));
                    return;
                }
            }
        }
    }

    /// Reads a path in an expression or a type.
    fn inline_path(&mut self) {
        let mut path = vec![self.peek(0).to_owned()];
        self.at += 1;
        while self.peek(0) == "::" && is_identifier(self.peek(1)) {
            path.push(self.peek(1).to_owned());
            self.at += 2;
        }
        self.source.identifiers.extend(path.iter().cloned());
        if let Some(path) = self.absolute(&path) {
            self.source.imports.push(path);
        }
    }

    /// The path from the crate's root, if it is one of this crate.
    fn absolute(&self, path: &[String]) -> Option<ModulePath> {
        let mut base = self.source.module.clone();
        base.extend(self.inline.iter().map(|(name, _)| name.clone()));
        let mut rest = path;
        match path.first().map(String::as_str) {
            Some("crate") => {
                base.clear();
                rest = &path[1..];
            }
            Some("self") => rest = &path[1..],
            Some("super") => {
                while rest.first().is_some_and(|segment| segment == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            // A child of this module, as in `pub use tokio::TokioTimeProvider`.
            Some(first) if self.source.children.iter().any(|child| child.name == first) => {}
            _ => return None,
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

fn tokens(text: &str) -> Vec<Token> {
    let mut chars = text.chars().peekable();
    let mut tokens = Vec::new();
    let mut line = 1;
    while let Some(first) = chars.next() {
        let started = line;
        let text = match first {
            '\n' => {
                line += 1;
                continue;
            }
            '/' if chars.peek() == Some(&'/') => {
                while chars.next_if(|next| *next != '\n').is_some() {}
                continue;
            }
            '/' if chars.peek() == Some(&'*') => {
                line += block_comment(&mut chars);
                continue;
            }
            '"' => quoted(&mut chars, &mut line),
            '\'' => {
                lifetime_or_char(&mut chars);
                continue;
            }
            'r' if matches!(chars.peek(), Some('"' | '#')) => match raw(&mut chars, &mut line) {
                Some(identifier) => identifier,
                None => continue,
            },
            ':' if chars.next_if_eq(&':').is_some() => "::".to_owned(),
            first if first.is_whitespace() => continue,
            first if first.is_alphanumeric() || first == '_' => {
                let mut word = String::from(first);
                while let Some(next) = chars.next_if(|next| next.is_alphanumeric() || *next == '_')
                {
                    word.push(next);
                }
                word
            }
            other => other.to_string(),
        };
        tokens.push(Token {
            text,
            line: started,
        });
    }
    tokens
}

/// Skips a block comment; gives how many lines it has.
fn block_comment(chars: &mut Peekable<Chars<'_>>) -> usize {
    let mut lines = 0;
    let mut last = ' ';
    for next in chars.by_ref() {
        lines += usize::from(next == '\n');
        if last == '*' && next == '/' {
            break;
        }
        last = next;
    }
    lines
}

/// A string literal, with its quotes: attributes are told apart by it.
fn quoted(chars: &mut Peekable<Chars<'_>>, line: &mut usize) -> String {
    let mut text = String::from('"');
    while let Some(next) = chars.next() {
        *line += usize::from(next == '\n');
        match next {
            '\\' => {
                *line += usize::from(chars.next() == Some('\n'));
            }
            '"' => break,
            other => text.push(other),
        }
    }
    text.push('"');
    text
}

/// Skips a raw string, or gives a raw identifier without its prefix.
fn raw(chars: &mut Peekable<Chars<'_>>, line: &mut usize) -> Option<String> {
    let mut hashes = 0;
    while chars.next_if_eq(&'#').is_some() {
        hashes += 1;
    }
    if chars.next_if_eq(&'"').is_none() {
        let mut word = String::new();
        while let Some(next) = chars.next_if(|next| next.is_alphanumeric() || *next == '_') {
            word.push(next);
        }
        return Some(word);
    }
    let mut seen = None;
    for next in chars.by_ref() {
        *line += usize::from(next == '\n');
        seen = match (next, seen) {
            ('"', _) => Some(0),
            ('#', Some(count)) => Some(count + 1),
            _ => None,
        };
        if seen == Some(hashes) {
            break;
        }
    }
    None
}

/// Skips `'a'`, `'\n'`, `'"'` or the tick of a lifetime.
fn lifetime_or_char(chars: &mut Peekable<Chars<'_>>) {
    match chars.next() {
        Some('\\') => {
            chars.next();
            while chars.next().is_some_and(|next| next != '\'') {}
        }
        Some(_) => {
            chars.next_if_eq(&'\'');
        }
        None => {}
    }
}
