//! The web framework of Curtsy: router, context, middleware, binding, rendering

#![forbid(unsafe_code)]
