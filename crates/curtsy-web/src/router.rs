//! The tree that holds a method's routes: a radix tree with gin's rules.
//!
//! At each place a static continuation is tried first, then `:param`, then `*catch-all`; what turns
//! out wrong further down is undone and the next one tried. A match allocates nothing: parameters
//! are ranges into the path.
//!
//! This is the form that grows; what answers requests is its [`Compiled`] form, made from it when
//! it is first asked after a change.
//!
//! Invariants:
//! - One place has at most one `:name` and at most one `*name`; another name there is refused, and
//!   the message quotes both patterns.
//! - Each node is entered at most once per match (what precedes it fixes its position in the path),
//!   so a match costs at most the size of the tree, whatever the path.
//!
//! Deliberately absent: methods (one tree each, see `table`), redirects, removing a route. Why not
//! an existing crate: `docs/decisions/0101-router.md`.

use crate::compiled::Compiled;
use crate::error::Error;
use crate::pattern::{PARAMS_MAX, Pattern, Piece};
use std::sync::{Arc, OnceLock};

/// The number of a route in its table.
pub(crate) type RouteId = u32;

/// Where the values of a route's wildcards are in the path.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Params {
    len: u8,
    ranges: [(u16, u16); PARAMS_MAX],
}

impl Params {
    /// The bytes of the `index`-th value.
    #[inline]
    pub(crate) fn range(&self, index: usize) -> Option<std::ops::Range<usize>> {
        if index >= usize::from(self.len) {
            return None;
        }
        let (start, end) = self.ranges[index];
        Some(usize::from(start)..usize::from(end))
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        usize::from(self.len)
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Forgets the values after the first `len`.
    #[inline]
    pub(crate) fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.len = u8::try_from(len).unwrap_or(self.len);
        }
    }

    /// Adds a value. Out of bounds is impossible for a tree's own patterns and paths: both are
    /// bounded when they come in.
    #[inline]
    pub(crate) fn push(&mut self, start: usize, end: usize) {
        if let (Ok(start), Ok(end)) = (u16::try_from(start), u16::try_from(end))
            && let Some(slot) = self.ranges.get_mut(usize::from(self.len))
        {
            *slot = (start, end);
            self.len += 1;
        }
    }
}

/// A method's routes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tree {
    root: Node,
    compiled: OnceLock<Compiled>,
}

/// A node of the tree: static bytes, and what may follow them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Node {
    pub(crate) prefix: Box<[u8]>,
    pub(crate) route: Option<Leaf>,
    /// The first byte of each static child, in the children's order.
    first: Vec<u8>,
    pub(crate) children: Vec<Node>,
    pub(crate) param: Option<Box<Param>>,
    pub(crate) catch_all: Option<Box<CatchAll>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Leaf {
    pub(crate) id: RouteId,
    pattern: Arc<str>,
}

#[derive(Clone, Debug)]
pub(crate) struct Param {
    name: Box<str>,
    /// The pattern that brought the name here.
    pattern: Arc<str>,
    pub(crate) node: Node,
}

#[derive(Clone, Debug)]
pub(crate) struct CatchAll {
    name: Box<str>,
    pub(crate) leaf: Leaf,
}

impl Tree {
    /// Adds a route, or says which one it collides with. After a refusal the tree finds what it
    /// found before.
    pub(crate) fn insert(&mut self, pattern: &Pattern, id: RouteId) -> Result<(), Error> {
        let leaf = Leaf {
            id,
            pattern: pattern.text.as_str().into(),
        };
        self.compiled = OnceLock::new();
        self.root.insert_pieces(&pattern.pieces, leaf)
    }

    /// The route of `path`. `params` has its values afterwards; without a route it is empty.
    #[inline]
    pub(crate) fn find(&self, path: &str, params: &mut Params) -> Option<RouteId> {
        params.clear();
        let compiled = self.compiled.get_or_init(|| Compiled::new(&self.root));
        let found = compiled.find(path.as_bytes(), params);
        if found.is_none() {
            params.clear();
        }
        found
    }

    /// The path of a route that differs from `path` only in the case of ASCII letters, if there is
    /// one. Values of wildcards keep their case.
    pub(crate) fn find_folded(&self, path: &str) -> Option<String> {
        let mut found = Vec::with_capacity(path.len());
        if self.root.fold_from(path.as_bytes(), 0, &mut found) {
            String::from_utf8(found).ok()
        } else {
            None
        }
    }
}

impl Node {
    fn insert_pieces(&mut self, pieces: &[Piece], leaf: Leaf) -> Result<(), Error> {
        let Some((piece, rest)) = pieces.split_first() else {
            if let Some(other) = &self.route {
                return Err(duplicate(&leaf.pattern, &other.pattern));
            }
            self.route = Some(leaf);
            return Ok(());
        };
        match piece {
            Piece::Static(bytes) => self.place(bytes).insert_pieces(rest, leaf),
            Piece::Param(name) => {
                let param = self.param.get_or_insert_with(|| {
                    Box::new(Param {
                        name: name.as_str().into(),
                        pattern: leaf.pattern.clone(),
                        node: Self::default(),
                    })
                });
                if *param.name != **name {
                    return Err(conflict(
                        (&leaf.pattern, &format!(":{name}")),
                        (&param.pattern, &format!(":{}", param.name)),
                    ));
                }
                param.node.insert_pieces(rest, leaf)
            }
            Piece::CatchAll(name) => match &self.catch_all {
                None => {
                    let name = name.as_str().into();
                    self.catch_all = Some(Box::new(CatchAll { name, leaf }));
                    Ok(())
                }
                Some(other) if *other.name == **name => {
                    Err(duplicate(&leaf.pattern, &other.leaf.pattern))
                }
                Some(other) => Err(conflict(
                    (&leaf.pattern, &format!("*{name}")),
                    (&other.leaf.pattern, &format!("*{}", other.name)),
                )),
            },
        }
    }

    /// The node that stands after `bytes`, made if it is not there.
    fn place(&mut self, bytes: &[u8]) -> &mut Self {
        let Some(&byte) = bytes.first() else {
            return self;
        };
        let index = self.first.iter().position(|&first| first == byte);
        let index = index.unwrap_or_else(|| {
            self.first.push(byte);
            self.children.push(Self {
                prefix: bytes.into(),
                ..Self::default()
            });
            self.children.len() - 1
        });
        let child = &mut self.children[index];
        let same = child
            .prefix
            .iter()
            .zip(bytes)
            .take_while(|(a, b)| a == b)
            .count();
        if same < child.prefix.len() {
            child.split(same);
        }
        child.place(&bytes[same..])
    }

    /// Makes this node end after `at` bytes; the rest of it becomes its only child.
    fn split(&mut self, at: usize) {
        let prefix = self.prefix[..at].into();
        let parent = Self {
            prefix,
            first: vec![self.prefix[at]],
            ..Self::default()
        };
        let mut child = std::mem::replace(self, parent);
        child.prefix = child.prefix[at..].into();
        self.children.push(child);
    }

    fn fold_from(&self, path: &[u8], at: usize, found: &mut Vec<u8>) -> bool {
        let end = at + self.prefix.len();
        if !path
            .get(at..end)
            .is_some_and(|here| here.eq_ignore_ascii_case(&self.prefix))
        {
            return false;
        }
        let mark = found.len();
        found.extend_from_slice(&self.prefix);
        if end == path.len() && self.route.is_some() {
            return true;
        }
        if self
            .children
            .iter()
            .any(|child| child.fold_from(path, end, found))
        {
            return true;
        }
        if let Some(param) = &self.param {
            let len = segment_len(&path[end..]);
            let before = found.len();
            found.extend_from_slice(&path[end..end + len]);
            if len > 0 && param.node.fold_from(path, end + len, found) {
                return true;
            }
            found.truncate(before);
        }
        if self.catch_all.is_some() {
            found.extend_from_slice(&path[end..]);
            return true;
        }
        found.truncate(mark);
        false
    }
}

#[inline]
pub(crate) fn segment_len(rest: &[u8]) -> usize {
    rest.iter()
        .position(|&byte| byte == b'/')
        .unwrap_or(rest.len())
}

fn duplicate(new: &str, old: &str) -> Error {
    Error::route(format!(
        "route \"{new}\" conflicts with \"{old}\": it is registered already"
    ))
}

fn conflict((new, here): (&str, &str), (old, there): (&str, &str)) -> Error {
    Error::route(format!(
        "route \"{new}\" conflicts with \"{old}\": \"{here}\" stands where that one has \"{there}\""
    ))
}
