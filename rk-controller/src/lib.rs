//! Reconcile loops: workqueue, controller runtime, and the Kubernetes controllers built on them.
