//! The Kubernetes scheduler as a framework of plugins, and the default profile.
