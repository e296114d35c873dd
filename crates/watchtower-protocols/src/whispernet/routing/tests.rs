//! Routing, with no node around it.
