//! The conformance suite of `Authorizer`.

use std::sync::Arc;

use crate::server::{Attributes, Authorizer, Decision, UserInfo};

/// Checks what is promised of every [`Authorizer`], with requests that it allows and others that it does not.
///
/// 1. The decision on the same request is the same each time, to many at once too, and where it takes no wait
///    ([`Authorizer::authorize_at_once`]).
/// 2. What is allowed to somebody is not allowed to a stranger of no group.
/// 3. What it does not allow it does not allow for any text in the request either (names of any length and characters), which is
///    no reason to panic; and a path that is no resource's gives no right to a resource, nor the other way round.
/// 4. Who is refused is told why, unless the authorizer has no opinion.
///
/// # Panics
/// A promise is broken.
pub async fn authorizer_conformance(authorizer: &dyn Authorizer, allowed: &[Attributes], refused: &[Attributes]) {
    for attributes in allowed {
        let decision = steady(authorizer, attributes).await;
        assert!(matches!(decision, Decision::Allow(_)), "{attributes:?}: {decision:?}");
        let stranger = Arc::new(UserInfo::new("a stranger whom nobody knows", []));
        refuse(authorizer, &Attributes { user: stranger, ..attributes.clone() }).await;
    }
    for attributes in refused {
        refuse(authorizer, attributes).await;
        for strange in strange(attributes) {
            refuse(authorizer, &strange).await;
        }
    }
    for attributes in allowed {
        assert!(
            matches!(authorizer.authorize(attributes).await, Decision::Allow(_)),
            "{attributes:?}, after the others"
        );
    }
}

async fn steady(authorizer: &dyn Authorizer, attributes: &Attributes) -> Decision {
    let first = authorizer.authorize(attributes).await;
    for again in futures::future::join_all((0..16).map(|_| authorizer.authorize(attributes))).await {
        assert_eq!(again, first, "{attributes:?}");
    }
    let at_once = authorizer.authorize_at_once(attributes);
    assert!(at_once.as_ref().is_none_or(|at_once| *at_once == first), "{attributes:?}: {at_once:?} and {first:?}");
    first
}

async fn refuse(authorizer: &dyn Authorizer, attributes: &Attributes) {
    match steady(authorizer, attributes).await {
        Decision::Allow(why) => panic!("allowed because {why:?}: {attributes:?}"),
        Decision::Deny(why) | Decision::Failed(why) => {
            assert!(!why.is_empty(), "refused without a reason: {attributes:?}")
        }
        Decision::NoOpinion(_) => {}
    }
}

/// The request of a stranger, with texts that no request should have.
fn strange(attributes: &Attributes) -> Vec<Attributes> {
    let user = Arc::new(UserInfo::new("\u{0}", ["", "*", "system:"]));
    let texts = ["", "*", "\u{0}", "../..", "system:masters", "\u{1F512}", "%2e%2e", &"x".repeat(100_000)];
    let one = |text: &str| {
        let base = Attributes { user: Arc::clone(&user), ..attributes.clone() };
        [
            Attributes { verb: text.to_owned().into(), ..base.clone() },
            Attributes { group: text.to_owned().into(), ..base.clone() },
            Attributes { resource: text.to_owned().into(), ..base.clone() },
            Attributes { subresource: text.to_owned(), ..base.clone() },
            Attributes { namespace: text.to_owned(), ..base.clone() },
            Attributes { name: text.to_owned(), ..base.clone() },
            Attributes { resource: "".into(), path: format!("/{text}"), ..base },
        ]
    };
    texts.into_iter().flat_map(one).collect()
}
