//! The extension points by name.

use super::profile::Points;

macro_rules! points {
    ($($(#[$doc:meta])* $point:ident: $field:ident,)*) => {
        /// An extension point, for settings that name it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Point {$(
            $(#[$doc])*
            $point,
        )*}

        impl Point {
            /// All of them.
            pub(crate) const ALL: &[Self] = &[$(Self::$point),*];
        }

        impl Points {
            /// Whether the plugin is used at a point.
            pub(crate) fn has(&self, point: Point) -> bool {
                match point {$(
                    Point::$point => self.$field.is_some(),
                )*}
            }

            /// Is used at a point as `other` is.
            pub(crate) fn take_over(&mut self, point: Point, other: &Self) {
                match point {$(
                    Point::$point => self.$field.clone_from(&other.$field),
                )*}
            }
        }
    };
}

points! {
    /// Before the queue.
    PreEnqueue: pre_enqueue,
    /// The order of the queue.
    QueueSort: queue_sort,
    /// Before the nodes are tried.
    PreFilter: pre_filter,
    /// Whether a node will do.
    Filter: filter,
    /// When no node will do.
    PostFilter: post_filter,
    /// Before nodes are scored.
    PreScore: pre_score,
    /// How good a node is.
    Score: score,
    /// Once a node is chosen.
    Reserve: reserve,
    /// Before it is bound.
    Permit: permit,
    /// What must be done first.
    PreBind: pre_bind,
    /// Binding.
    Bind: bind,
    /// Once it is bound.
    PostBind: post_bind,
}
