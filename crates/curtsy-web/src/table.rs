//! Everything an engine knows, as one value: its trees, routes, options and state.
//!
//! Invariants:
//! - A table that serves never changes: an engine that is told something new while requests run
//!   works on a copy.
//! - `routes[id]` is the route that the trees call `id`.

use crate::error::Error;
use crate::handler::{Chain, Link};
use crate::pattern::Pattern;
use crate::proxy::Proxies;
use crate::router::{Params, RouteId, Tree};
use crate::settings::Settings;
use http::Method;
use std::any::{Any, TypeId};
use std::sync::Arc;

/// An engine's handle to its table. The outer count is this handle's own: cloning it per request
/// touches no cache line that another worker writes to.
pub(crate) type Handle = Arc<Arc<Table>>;

/// All that an engine was told.
#[derive(Clone)]
pub(crate) struct Table {
    pub(crate) settings: Settings,
    pub(crate) proxies: Proxies,
    /// One tree for each method, in the order of their first registration.
    trees: Vec<(Method, Tree)>,
    routes: Vec<Route>,
    /// The engine's own middleware.
    pub(crate) middleware: Vec<Link>,
    pub(crate) no_route: Vec<Link>,
    pub(crate) no_method: Vec<Link>,
    /// What runs when no route matches: middleware and `no_route`.
    pub(crate) missing: Route,
    /// What runs when the path has routes, but not for this method.
    pub(crate) refused: Route,
    /// What runs when a route itself says that there is nothing.
    absent: Route,
    state: Vec<(TypeId, Arc<dyn Any + Send + Sync>)>,
    #[cfg(feature = "html")]
    pub(crate) templates: Option<Arc<crate::html::Templates>>,
}

/// A registered route.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) pattern: Arc<str>,
    pub(crate) names: Arc<[Box<str>]>,
    pub(crate) chain: Arc<[Link]>,
}

/// Which of a table's routes a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Route(RouteId),
    Missing,
    Refused,
    /// A route found nothing to answer with: `no_route` without the middleware, which has run.
    Absent,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self {
            settings: Settings::default(),
            proxies: Proxies::everything(),
            trees: Vec::new(),
            routes: Vec::new(),
            middleware: Vec::new(),
            no_route: Vec::new(),
            no_method: Vec::new(),
            missing: Route::pseudo(&[], &[]),
            refused: Route::pseudo(&[], &[]),
            absent: Route::pseudo(&[], &[]),
            state: Vec::new(),
            #[cfg(feature = "html")]
            templates: None,
        }
    }

    pub(crate) fn add(&mut self, method: &Method, path: &str, chain: Chain) -> Result<(), Error> {
        let pattern = Pattern::parse(path)?;
        let Ok(id) = RouteId::try_from(self.routes.len()) else {
            return Err(Error::route("too many routes"));
        };
        let known = self.trees.iter().position(|(of, _)| of == method);
        let known = known.unwrap_or_else(|| {
            self.trees.push((method.clone(), Tree::default()));
            self.trees.len() - 1
        });
        let tree = &mut self.trees[known].1;
        tree.insert(&pattern, id)
            .map_err(|error| Error::route(format!("{method}: {error}")))?;
        self.routes.push(Route {
            method: method.clone(),
            names: pattern.names().map(Into::into).collect(),
            pattern: pattern.text.into(),
            chain: chain.0.into(),
        });
        Ok(())
    }

    /// Makes the chains for paths without a route anew, after middleware or handlers changed.
    pub(crate) fn refresh(&mut self) {
        self.missing = Route::pseudo(&self.middleware, &self.no_route);
        self.refused = Route::pseudo(&self.middleware, &self.no_method);
        self.absent = Route::pseudo(&[], &self.no_route);
    }

    #[inline]
    pub(crate) fn find(&self, method: &Method, path: &str, params: &mut Params) -> Option<RouteId> {
        self.tree(method)?.find(path, params)
    }

    #[inline]
    pub(crate) fn tree(&self, method: &Method) -> Option<&Tree> {
        self.trees
            .iter()
            .find(|(of, _)| of == method)
            .map(|(_, tree)| tree)
    }

    /// The methods other than `method` that have a route for `path`, in the order of registration.
    pub(crate) fn allowed(&self, method: &Method, path: &str) -> Vec<&Method> {
        let mut params = Params::default();
        self.trees
            .iter()
            .filter(|(of, _)| of != method)
            .filter(|(_, tree)| tree.find(path, &mut params).is_some())
            .map(|(of, _)| of)
            .collect()
    }

    #[inline]
    pub(crate) fn route(&self, target: Target) -> &Route {
        match target {
            Target::Route(id) => &self.routes[id as usize],
            Target::Missing => &self.missing,
            Target::Refused => &self.refused,
            Target::Absent => &self.absent,
        }
    }

    pub(crate) fn routes(&self) -> &[Route] {
        &self.routes
    }

    pub(crate) fn put_state(&mut self, value: Arc<dyn Any + Send + Sync>) {
        let id = (*value).type_id();
        self.state.retain(|(of, _)| *of != id);
        self.state.push((id, value));
    }

    pub(crate) fn state<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        let id = TypeId::of::<T>();
        let (_, value) = self.state.iter().find(|(of, _)| *of == id)?;
        Arc::clone(value).downcast().ok()
    }
}

impl Route {
    fn pseudo(middleware: &[Link], handlers: &[Link]) -> Self {
        Self {
            method: Method::GET,
            pattern: "".into(),
            names: Arc::new([]),
            chain: middleware.iter().chain(handlers).cloned().collect(),
        }
    }
}
