use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, SanType};
use x509_parser::prelude::FromDer;

use super::*;
use crate::controllers::certificates::request::{CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY};

fn authority() -> (Authority, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(2999, 1, 1);
    let certificate = params.self_signed(&key).unwrap().pem();
    (Authority::new(&certificate, &key.serialize_pem()).unwrap(), certificate)
}

fn request(name: &str, organization: &str, names: &[SanType]) -> Asked {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.distinguished_name.push(DnType::OrganizationName, organization);
    params.subject_alt_names = names.to_vec();
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    Asked::parse(pem.as_bytes()).unwrap()
}

fn usages(list: &[&str]) -> Vec<String> {
    list.iter().map(|usage| (*usage).to_owned()).collect()
}

#[test]
fn what_is_signed_is_what_was_asked_for() {
    let (authority, root) = authority();
    let names = [SanType::DnsName("n1".try_into().unwrap()), SanType::IpAddress("10.0.0.1".parse().unwrap())];
    let asked = request("system:node:n1", "system:nodes", &names);
    let serving = usages(&["digital signature", "key encipherment", "server auth"]);
    let signed = authority.sign(&asked, &serving, SignedDuration::from_hours(1)).unwrap();
    let (_, pem) = parse_x509_pem(signed.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let (_, root) = parse_x509_pem(root.as_bytes()).unwrap();
    certificate.verify_signature(Some(root.parse_x509().unwrap().public_key())).unwrap();
    assert_eq!(certificate.subject().to_string(), "CN=system:node:n1, O=system:nodes");
    assert_eq!(certificate.issuer().iter_common_name().next().unwrap().as_str().unwrap(), "authority");
    assert_eq!(certificate.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 2);
    let usage = certificate.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature() && usage.value.key_encipherment());
    assert!(!usage.value.key_cert_sign());
    let purpose = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(purpose.server_auth && !purpose.client_auth);
    assert!(!certificate.basic_constraints().unwrap().unwrap().value.ca);
    let span = certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp();
    assert_eq!(span, 3600 + 300);
    // The rest of the world reads it too.
    x509_parser::certificate::X509Certificate::from_der(&pem.contents).unwrap();
}

#[test]
fn each_signer_has_its_rules() {
    let dns = [SanType::DnsName("n1".try_into().unwrap())];
    let uri = [SanType::URI("spiffe://x".try_into().unwrap())];
    let node = |names: &[SanType]| request("system:node:n1", "system:nodes", names);
    let (client, server) = (&["digital signature", "client auth"][..], &["digital signature", "server auth"][..]);
    for (asked, signer, used, word) in [
        (node(&[]), KUBELET_CLIENT, client, ""),
        (node(&dns), KUBELET_CLIENT, client, "DNS subjectAltNames are not allowed"),
        (node(&[]), KUBELET_CLIENT, server, "usages did not match"),
        (request("jane", "system:nodes", &[]), KUBELET_CLIENT, client, "common name"),
        (request("system:node:n1", "system:masters", &[]), KUBELET_CLIENT, client, "organization"),
        (node(&dns), KUBELET_SERVING, server, ""),
        (node(&[]), KUBELET_SERVING, server, "DNS or IP subjectAltName is required"),
        (node(&[dns[0].clone(), uri[0].clone()]), KUBELET_SERVING, server, "URI subjectAltNames are not allowed"),
        (node(&dns), KUBELET_SERVING, client, "usages did not match"),
        (request("jane", "dev", &[]), CLIENT, client, ""),
        (request("jane", "dev", &[]), CLIENT, server, "invalid usages"),
    ] {
        match (asked.check(signer, &usages(used)), word) {
            (Ok(true), "") => {}
            (Err(why), word) if !word.is_empty() && why.contains(word) => {}
            (other, word) => panic!("{signer}: expected {word:?}, got {other:?}"),
        }
    }
    assert_eq!(node(&[]).check("example.com/mine", &usages(client)), Ok(false));
    // Who approves a request of the old kind knows what for.
    assert_eq!(request("jane", "dev", &[uri[0].clone()]).check(LEGACY, &usages(&["any"])), Ok(true));
}

#[test]
fn all_usages_can_be_signed() {
    let (authority, _) = authority();
    let asked = request("jane", "dev", &[]);
    let all = usages(&["decipher only", "signing", "any", "ipsec user", "microsoft sgc", "netscape sgc"]);
    let signed = authority.sign(&asked, &all, SignedDuration::from_hours(1)).unwrap();
    let (_, pem) = parse_x509_pem(signed.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let usage = certificate.key_usage().unwrap().unwrap().value;
    assert!(usage.digital_signature() && usage.decipher_only() && !usage.key_encipherment());
    let purpose = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(purpose.any);
    let other: Vec<String> = purpose.other.iter().map(ToString::to_string).collect();
    assert_eq!(other, ["1.3.6.1.5.5.7.3.7", "1.3.6.1.4.1.311.10.3.3", "2.16.840.1.113730.4.1"]);
}

#[test]
fn a_second_name_is_refused() {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "system:kube-scheduler");
    params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 3]), "system:node:n1");
    params.distinguished_name.push(DnType::OrganizationName, "system:nodes");
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    assert!(Asked::parse(pem.as_bytes()).unwrap_err().contains("several common names"));
}

#[test]
fn junk_is_refused() {
    assert!(Asked::parse(b"junk").is_err());
    assert!(Asked::parse(b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n").is_err());
    let (_, certificate) = authority();
    assert!(Authority::new(&certificate, &KeyPair::generate().unwrap().serialize_pem()).is_err());
    assert!(Authority::new("junk", "junk").is_err());
}
