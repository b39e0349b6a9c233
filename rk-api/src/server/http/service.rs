//! The `tower::Service`.

use std::{
    cell::RefCell,
    convert::Infallible,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, Method, Request, Response, header, request::Parts};

use super::{
    answer::{self, Style},
    audited,
    body::{self, Body},
    deadline::Deadline,
    health, identity, impersonation,
    metrics::Labels,
    negotiate, panicking,
    path::ResourcePath,
    query::Query,
    resource, seated,
};
use crate::{
    Error,
    server::{Attributes, UserInfo, audit::Trail, pipeline::Core},
    status,
};

/// Which FlowSchema and which PriorityLevelConfiguration an answer's request was under.
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// The server's HTTP face. Clones answer for the same server.
///
/// As a service it fits `kube::Client::new(service, "default")`, so that any program written for kube runs on a server in
/// its own process.
#[derive(Clone)]
pub struct HttpService {
    core: Arc<Core>,
    /// Who all requests come from; `None` to ask the authenticators.
    user: Option<Arc<UserInfo>>,
}

impl HttpService {
    pub(crate) fn new(core: Arc<Core>, user: Option<UserInfo>) -> Self {
        Self { core, user: user.map(Arc::new) }
    }

    /// Ends watches and tells `/readyz` that the server is about to go.
    pub fn stop(&self) {
        self.core.stopping.cancel();
    }

    /// Answers one request.
    pub async fn handle<B>(self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let (mut parts, body) = request.into_parts();
        let path = ResourcePath::parse(parts.uri.path());
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let long = path.as_ref().is_some_and(|path| resource::is_long_running(&parts.method, path, &query));
        // What is not served here has no labels of its own: anybody could ask for ever more of it, and labels stay.
        let served = path.as_ref().filter(|path| {
            let catalog = self.core.catalog.load();
            let served = catalog.get(&path.group, &path.version, &path.plural);
            served.is_some_and(|served| served.has(&path.subresource))
        });
        let labels = Labels::of(&parts.method, served, &query);
        let _running = self.core.metrics.start(&labels, long);
        let started = tokio::time::Instant::now();
        let answered = panicking::caught(pin!(async {
            let deadline = Deadline::asked(started, &query, self.core.limits.request_timeout, long)?;
            self.answer(&mut parts, path, &query, body, deadline).await
        }))
        .await;
        let response = match answered {
            Ok(answered) => answered.unwrap_or_else(|error| answer::failure(&error, negotiate::format(&parts.headers))),
            Err(_) => panicking::response(),
        };
        self.core.metrics.done(labels, response.status().as_u16(), started.elapsed());
        response
    }

    /// Authenticates the caller, and follows what comes of the request if it is audited: that it came too late, too.
    async fn answer<B>(
        &self,
        parts: &mut Parts,
        path: Option<ResourcePath>,
        query: &Query,
        body: B,
        deadline: Deadline,
    ) -> Result<Response<Body>, Error>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let known = match &self.user {
            Some(user) => Ok(Arc::clone(user)),
            None => identity::authenticate(&self.core, parts, deadline).await,
        };
        let nobody = || Arc::new(UserInfo::default());
        let asks = known.as_ref().map_or_else(|_| nobody(), Arc::clone);
        match audited::begin(&self.core, &asks, parts, path.as_ref(), query) {
            // Pinned where they are, here and below, so that they are not moved again: they are large.
            None => deadline.keep(pin!(self.route(known?, parts, path, query, body, deadline))).await,
            // On the heap, so that requests that are not audited stay small.
            Some(trail) => Ok(Box::pin(self.audited(trail, known, parts, path, query, body, deadline)).await),
        }
    }

    /// Answers a request whose trail is followed.
    #[expect(clippy::too_many_arguments, reason = "all there is of a request")]
    async fn audited<B>(
        &self,
        mut trail: Trail,
        user: Result<Arc<UserInfo>, Error>,
        parts: &mut Parts,
        path: Option<ResourcePath>,
        query: &Query,
        body: B,
        deadline: Deadline,
    ) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let answered = panicking::caught(pin!(async {
            let user = user?;
            if trail.wants_request() && deadline.is_some() {
                let read = audited::request_body(&mut trail, parts, body, self.core.limits.body);
                let body = deadline.keep(read).await?;
                let routed = pin!(self.route(user, parts, path, query, body, deadline));
                trail.follow(deadline.keep(routed)).await
            } else {
                let routed = pin!(self.route(user, parts, path, query, body, deadline));
                trail.follow(deadline.keep(routed)).await
            }
        }))
        .await;
        let response = match answered {
            Ok(answered) => answered.unwrap_or_else(|error| answer::failure(&error, negotiate::format(&parts.headers))),
            Err(why) => {
                trail.panicked(&why);
                panicking::response()
            }
        };
        audited::response(trail, response, deadline, negotiate::format(&parts.headers)).await
    }

    /// Lets the caller act as somebody else, lets the request in, and answers it.
    async fn route<B>(
        &self,
        user: Arc<UserInfo>,
        parts: &mut Parts,
        path: Option<ResourcePath>,
        query: &Query,
        body: B,
        deadline: Deadline,
    ) -> Result<Response<Body>, Error>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display,
    {
        let user = if self.user.is_some() {
            user
        } else {
            let asked = || audited::attributes(&user, parts, path.as_ref(), query);
            impersonation::impersonate(&self.core, Arc::clone(&user), &parts.headers, asked).await?
        };
        let gate = &self.core.gate;
        // What lasts takes no seat, but that of a watch until what is there is sent.
        let watches = || path.as_ref().and_then(|path| resource::verb(&parts.method, path, query)) == Some("watch");
        let lasts = !deadline.is_some();
        if gate.is_open() || lasts && !(gate.holds_watches() && watches()) {
            return self.dispatch(user, parts, path, query, body).await;
        }
        let until = deadline.at().unwrap_or_else(|| tokio::time::Instant::now() + self.core.limits.request_timeout);
        let asked = audited::attributes(&user, parts, path.as_ref(), query);
        let cost = || resource::cost(&self.core, &asked.verb, path.as_ref(), query);
        let mut admitted = gate.enter(&asked, cost, &*self.core).await?;
        let by = admitted.by.take();
        let answered = self.dispatch(user, parts, path, query, body).await;
        let mut response = match answered {
            // Without these headers it is the caller's to word.
            Err(error) if by.is_none() => return Err(error),
            answered => answered.unwrap_or_else(|error| answer::failure(&error, negotiate::format(&parts.headers))),
        };
        for (name, uid) in by.into_iter().flat_map(|(schema, level)| [(SCHEMA_UID, schema), (LEVEL_UID, level)]) {
            if let Ok(uid) = HeaderValue::from_str(&uid) {
                response.headers_mut().insert(name, uid);
            }
        }
        Ok(seated::response(admitted, response, until, lasts))
    }

    async fn dispatch<B>(
        &self,
        user: Arc<UserInfo>,
        parts: &mut Parts,
        path: Option<ResourcePath>,
        query: &Query,
        body: B,
    ) -> Result<Response<Body>, Error>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: std::fmt::Display,
    {
        #[cfg(feature = "serve")]
        if let Some(backend) = super::aggregated::backend(&self.core, parts.uri.path()) {
            let asked = (path.as_ref(), query);
            return super::aggregated::answer(&self.core, &backend, &user, parts, asked, body).await;
        }
        match path {
            Some(path) => resource::answer(&self.core, user, parts, path, query, body).await,
            None => self.other(user, parts, query).await,
        }
    }

    /// Answers a path that names no resource.
    async fn other(&self, user: Arc<UserInfo>, parts: &Parts, query: &Query) -> Result<Response<Body>, Error> {
        let path = parts.uri.path();
        let verb = parts.method.as_str().to_lowercase();
        let attributes = Attributes { user, verb: verb.into(), path: path.to_owned(), ..Attributes::default() };
        self.core.authorize_attributes(&attributes).await?;
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return Err(status::method_not_allowed().into());
        }
        if let Some(response) = health::answer(&self.core, path, query) {
            return Ok(response);
        }
        if let Some(document) = self.core.documents.get(path) {
            return Ok(answer::tree(200, document, &Style::PLAIN));
        }
        match path {
            "/version" | "/version/" => return Ok(answer::tree(200, &health::version(), &Style::PLAIN)),
            "/metrics" => {
                let text = self.core.metrics.encode(&self.core.cache);
                let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                return Ok(answer::respond(200, kind, body::full(text)));
            }
            _ => {}
        }
        if let Some(response) = super::openapi::answer(&self.core, parts, query)? {
            return Ok(response);
        }
        if let Some(response) = super::discovery::answer(&self.core, parts)? {
            return Ok(response);
        }
        Err(status::no_such_path().into())
    }
}

/// The time of day as a header has it, written once a second.
fn date() -> HeaderValue {
    thread_local! {
        static LAST: RefCell<(i64, HeaderValue)> = const { RefCell::new((i64::MIN, HeaderValue::from_static(""))) };
    }
    let now = crate::now();
    LAST.with_borrow_mut(|(second, header)| {
        if *second != now.as_second()
            && let Ok(written) = HeaderValue::from_str(&now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
        {
            (*second, *header) = (now.as_second(), written);
        }
        header.clone()
    })
}

impl<B> tower::Service<Request<B>> for HttpService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: std::fmt::Display,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            let head = request.method() == Method::HEAD;
            let clock = service.core.clock.clone();
            let answered = pin!(async {
                let mut response = service.handle(request).await;
                // Clients compare clocks by it.
                response.headers_mut().entry(header::DATE).or_insert_with(date);
                response
            });
            let mut response = crate::clock::within(&clock, answered).await;
            if head {
                *response.body_mut() = body::empty();
            }
            Ok(response)
        })
    }
}
