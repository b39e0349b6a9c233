//! Service proxying: services and endpoint slices into a backend's rules, DNS and ingress.
