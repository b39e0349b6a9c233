//! What a certificate request in PKCS #10 asks for, and whether a built-in signer takes it.

use x509_parser::{
    certification_request::X509CertificationRequest,
    cri_attributes::ParsedCriAttribute,
    extensions::{GeneralName, ParsedExtension},
    oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME,
    pem::parse_x509_pem,
    prelude::FromDer,
    x509::AttributeTypeAndValue,
};

pub(super) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(super) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
/// The signer of requests from before there were signers, which can be asked for in no version that is served now.
pub(super) const LEGACY: &str = "kubernetes.io/legacy-unknown";

/// A request whose signature holds: who asks has the key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    pub(super) dns_names: usize,
    pub(super) addresses: usize,
    pub(super) emails: usize,
    pub(super) uris: usize,
    /// The subject in DER, as it was asked for.
    pub(super) subject: Vec<u8>,
    /// The public key in DER.
    pub(super) public_key: Vec<u8>,
    /// The value of the extension `subjectAltName` in DER; empty for none.
    pub(super) names: Vec<u8>,
}

/// The texts of a subject's attributes. One that can't be read can't be judged, and would still be signed.
fn texts<'a, 'b: 'a>(values: impl Iterator<Item = &'a AttributeTypeAndValue<'b>>) -> Result<Vec<String>, String> {
    let text = |value: &AttributeTypeAndValue<'_>| value.as_str().map(str::to_owned);
    let texts: Result<Vec<String>, _> = values.map(text).collect();
    texts.map_err(|error| format!("the request's subject can't be read: {error}"))
}

impl Asked {
    /// Reads a request in PEM.
    pub(super) fn parse(pem: &[u8]) -> Result<Self, String> {
        let (_, pem) = parse_x509_pem(pem).map_err(|error| format!("the request is no PEM: {error}"))?;
        let parsed = X509CertificationRequest::from_der(&pem.contents);
        let (_, request) = parsed.map_err(|error| format!("the request is no PKCS #10: {error}"))?;
        request.verify_signature().map_err(|error| format!("the request's signature does not hold: {error}"))?;
        let info = &request.certification_request_info;
        let common = texts(info.subject.iter_common_name())?;
        if common.len() > 1 {
            // Who reads the certificate might take another one for the name than who approved it.
            return Err("the request's subject has several common names".to_owned());
        }
        let organizations = texts(info.subject.iter_organization())?;
        let mut asked = Self {
            common_name: common.into_iter().next().unwrap_or_default(),
            organizations,
            subject: info.subject.as_raw().to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
            ..Self::default()
        };
        let requested = info.iter_attributes().filter_map(|attribute| match attribute.parsed_attribute() {
            ParsedCriAttribute::ExtensionRequest(requested) => Some(&requested.extensions),
            _ => None,
        });
        for extension in requested.flatten().filter(|extension| extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME) {
            let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension() else {
                return Err("the request's subjectAltName can't be read".to_owned());
            };
            asked.names = extension.value.to_vec();
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(_) => asked.dns_names += 1,
                    GeneralName::IPAddress(_) => asked.addresses += 1,
                    GeneralName::RFC822Name(_) => asked.emails += 1,
                    GeneralName::URI(_) => asked.uris += 1,
                    other => return Err(format!("the request's subjectAltName has a name of another kind: {other:?}")),
                }
            }
        }
        Ok(asked)
    }

    /// Why a built-in signer does not sign this for these usages (api's `certificates/v1/helpers.go` and the signers' own rules);
    /// `Ok(false)` if the signer is none that signs.
    pub(super) fn check(&self, signer: &str, usages: &[String]) -> Result<bool, String> {
        match signer {
            CLIENT => {
                let known = ["digital signature", "key encipherment", "client auth"];
                if !usages.iter().any(|usage| usage == "client auth")
                    || usages.iter().any(|usage| !known.contains(&usage.as_str()))
                {
                    return Err(format!("invalid usages for client certificate: {usages:?}"));
                }
                Ok(true)
            }
            KUBELET_CLIENT => {
                self.is_of_node()?;
                for (count, what) in
                    [(self.dns_names, "DNS"), (self.emails, "email"), (self.addresses, "IP"), (self.uris, "URI")]
                {
                    if count > 0 {
                        return Err(format!("{what} subjectAltNames are not allowed"));
                    }
                }
                exactly(usages, "client auth").map(|()| true)
            }
            KUBELET_SERVING => {
                self.is_of_node()?;
                if self.dns_names == 0 && self.addresses == 0 {
                    return Err("DNS or IP subjectAltName is required".to_owned());
                }
                for (count, what) in [(self.emails, "email"), (self.uris, "URI")] {
                    if count > 0 {
                        return Err(format!("{what} subjectAltNames are not allowed"));
                    }
                }
                exactly(usages, "server auth").map(|()| true)
            }
            // It promises nothing, and has no rules.
            LEGACY => Ok(true),
            _ => Ok(false),
        }
    }

    fn is_of_node(&self) -> Result<(), String> {
        if self.organizations != ["system:nodes"] {
            return Err("subject organization is not system:nodes".to_owned());
        }
        if !self.common_name.starts_with("system:node:") {
            return Err("subject common name does not begin with system:node: ".to_owned());
        }
        Ok(())
    }
}

/// The usages of a kubelet's certificate: one, digital signature, and perhaps key encipherment.
fn exactly(usages: &[String], one: &str) -> Result<(), String> {
    let mut sorted: Vec<&str> = usages.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut wanted = vec![one, "digital signature"];
    wanted.sort_unstable();
    let mut more = vec![one, "digital signature", "key encipherment"];
    more.sort_unstable();
    if sorted == wanted || sorted == more { Ok(()) } else { Err(format!("usages did not match {more:?}")) }
}
