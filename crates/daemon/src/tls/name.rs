//! Names in a certificate: the distinguished name as text (RFC 4514), unambiguous, so that it may be compared, and the
//! alternative ones (RFC 5280 §4.2.1.6).

use std::fmt::Write as _;

use rustls::pki_types::CertificateDer;
use x509_parser::der_parser::asn1_rs::ToDer as _;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The certificate's subject, such as `CN=device-17,O=Plant 7,C=DE`: the last part of the name comes first (RFC 4514 §2.1).
#[must_use]
pub fn distinguished_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    Some(text(parsed.subject()))
}

/// The first subjectAltName that is a URI.
#[must_use]
pub fn first_uri(certificate: &CertificateDer<'_>) -> Option<String> {
    first(certificate, |name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    })
}

/// The first subjectAltName that is a DNS name.
#[must_use]
pub fn first_dns_name(certificate: &CertificateDer<'_>) -> Option<String> {
    first(certificate, |name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    })
}

fn first(
    certificate: &CertificateDer<'_>,
    wanted: impl for<'a> Fn(&'a GeneralName<'a>) -> Option<&'a str>,
) -> Option<String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(wanted).map(str::to_owned)
}

fn text(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> =
        name.iter_rdn().map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+")).collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    match (keyword(&oid), attribute.as_str()) {
        (Some(keyword), Ok(value)) => format!("{keyword}={}", escaped(value)),
        // RFC 4514 §2.4: what has no keyword or is no plain string, as it stands in the certificate.
        (keyword, _) => {
            let mut text = format!("{}=#", keyword.unwrap_or(&oid));
            for byte in attribute.attr_value().to_der_vec().unwrap_or_default() {
                let _ = write!(text, "{byte:02x}");
            }
            text
        }
    }
}

/// RFC 4514 §3.
fn keyword(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.6" => "C",
        "2.5.4.9" => "STREET",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        _ => return None,
    })
}

/// RFC 4514 §2.4; control characters too, so that a name cannot forge a line of a log.
fn escaped(value: &str) -> String {
    let last = value.chars().count().saturating_sub(1);
    let mut text = String::with_capacity(value.len());
    for (at, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => text.extend(['\\', character]),
            ' ' if at == 0 || at == last => text.push_str("\\ "),
            '#' if at == 0 => text.push_str("\\#"),
            control if control.is_control() => {
                for byte in control.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(text, "\\{byte:02x}");
                }
            }
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

    use super::*;

    fn subject(parts: &[(DnType, &str)]) -> String {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in parts {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        distinguished_name(certificate.der()).unwrap()
    }

    #[test]
    fn a_name_is_written_from_its_end() {
        let name =
            [(DnType::CountryName, "DE"), (DnType::OrganizationName, "Plant 7"), (DnType::CommonName, "Gerät 17")];
        assert_eq!(subject(&name), "CN=Gerät 17,O=Plant 7,C=DE");
        assert_eq!(subject(&[]), "");
    }

    #[test]
    fn no_value_passes_for_more_than_itself() {
        assert_eq!(subject(&[(DnType::CommonName, "a,O=Plant 7")]), "CN=a\\,O=Plant 7");
        assert_eq!(subject(&[(DnType::CommonName, "# a+\"b\" ")]), "CN=\\# a\\+\\\"b\\\"\\ ");
        assert_eq!(subject(&[(DnType::CommonName, "a\nb")]), "CN=a\\0ab");
        // emailAddress has no keyword: an IA5String or UTF8String in hexadecimal.
        let other = subject(&[(DnType::CustomDnType(vec![1, 2, 840, 113_549, 1, 9, 1]), "a@b")]);
        assert_eq!(other, "1.2.840.113549.1.9.1=#0c03614062");
    }
}
