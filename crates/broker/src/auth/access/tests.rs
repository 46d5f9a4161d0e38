use std::path::Path;

use evermq_config::broker::AclRule;
use evermq_daemon::proxy_protocol::Ssl;
use evermq_mqtt::{ReasonCode, Text, TopicName, Version};

use super::*;
use crate::broker::tests::connect;

fn in_force(anonymous: Anonymous) -> InForce {
    InForce {
        identity: CertificateIdentity::CommonName,
        anonymous,
        listeners: HashMap::new(),
        passwords: None,
        rules: None,
        revocations: Arc::default(),
    }
}

fn passwords(users: &[(&str, &str)]) -> Option<Arc<PasswordFile>> {
    let line = |(user, password): &(&str, &str)| format!("{user}:{}\n", Hash::make(password.as_bytes()));
    let text: String = users.iter().map(line).collect();
    Some(Arc::new(PasswordFile::parse(Path::new("p"), text.as_bytes(), Effort::None).unwrap().0))
}

fn from(address: &str) -> Client {
    Client::new(address.parse().unwrap(), None)
}

fn here() -> Client {
    from("127.0.0.1:1")
}

fn with_certificate(cn: &str) -> Client {
    let ssl = Ssl { is_tls: true, shown: true, cn: Some(cn.into()), dn: Some("O=x".into()), ..Ssl::default() };
    from("192.0.2.1:1").with_ssl(&ssl)
}

fn saying(user: Option<&str>, password: Option<&str>) -> Connect {
    Connect {
        username: user.map(|user| Text::new(user).unwrap()),
        password: password.map(|password| password.as_bytes().to_vec().into()),
        ..connect("c")
    }
}

async fn user_of(access: &Access, client: &Client, connect: &Connect) -> Result<Option<String>, Refusal> {
    access.admit(client, connect, &Turn::FREE).await.map(|login| login.user.map(|user| user.to_string()))
}

#[tokio::test]
async fn anonymous_clients() {
    for (anonymous, local, remote) in
        [(Anonymous::Off, false, false), (Anonymous::Loopback, true, false), (Anonymous::On, true, true)]
    {
        let access = Access::new(in_force(anonymous));
        for (client, expected) in [(here(), local), (from("192.0.2.1:1"), remote)] {
            let expected = if expected { Ok(None) } else { Err(Refusal::Nobody) };
            assert_eq!(user_of(&access, &client, &saying(None, None)).await, expected, "{anonymous:?}");
        }
    }
    assert_eq!(Refusal::Nobody.reason(Version::V5), ReasonCode::NotAuthorized);
}

#[tokio::test]
async fn a_listener_has_a_word_of_its_own() {
    let rules = InForce { listeners: [("open".to_owned(), Anonymous::On)].into(), ..in_force(Anonymous::Off) };
    let access = Access::new(rules);
    let through = |name: &str| Client { listener: name.into(), ..from("192.0.2.1:1") };
    assert_eq!(user_of(&access, &through("open"), &saying(None, None)).await, Ok(None));
    assert_eq!(user_of(&access, &through("web"), &saying(None, None)).await, Err(Refusal::Nobody));
}

#[tokio::test]
async fn a_certificate_wins_over_what_the_client_says() {
    let access = Access::new(InForce { passwords: passwords(&[("anna", "one")]), ..in_force(Anonymous::Off) });
    let client = with_certificate("device-1");
    for connect in [saying(None, None), saying(Some("anna"), Some("one")), saying(Some("anna"), Some("wrong"))] {
        assert_eq!(user_of(&access, &client, &connect).await, Ok(Some("device-1".to_owned())));
    }
}

#[tokio::test]
async fn a_certificate_without_the_name_needs_a_password() {
    let rules = |identity| InForce { passwords: passwords(&[("anna", "one")]), identity, ..in_force(Anonymous::On) };
    for (identity, client, refusal) in [
        (CertificateIdentity::CommonName, with_certificate(""), Refusal::Nameless),
        (CertificateIdentity::SanUri, with_certificate("device-1"), Refusal::Untold),
    ] {
        let access = Access::new(rules(identity));
        assert_eq!(user_of(&access, &client, &saying(None, None)).await, Err(refusal));
        assert_eq!(user_of(&access, &client, &saying(Some("anna"), Some("one"))).await, Ok(Some("anna".to_owned())));
        assert_eq!(refusal.reason(Version::V5), ReasonCode::NotAuthorized);
    }
}

#[tokio::test]
async fn passwords_are_asked_for_by_user_names() {
    let access = Access::new(InForce { passwords: passwords(&[("anna", "one")]), ..in_force(Anonymous::On) });
    for (user, password, expected) in [
        (Some("anna"), Some("one"), Ok(Some("anna".to_owned()))),
        (Some("anna"), Some("two"), Err(Refusal::BadPassword)),
        (Some("anna"), None, Err(Refusal::NoPassword)),
        (Some("anna"), Some(""), Err(Refusal::NoPassword)),
        (Some("nobody"), Some("one"), Err(Refusal::BadPassword)),
        (None, Some("one"), Ok(None)),
        (None, None, Ok(None)),
    ] {
        assert_eq!(user_of(&access, &here(), &saying(user, password)).await, expected, "{user:?} {password:?}");
    }
    assert_eq!(Refusal::BadPassword.reason(Version::V5), ReasonCode::BadUserNameOrPassword);
    assert_eq!(Refusal::BadPassword.reason(Version::V4), ReasonCode::NotAuthorized);
    assert_eq!(Refusal::NoPassword.reason(Version::V5), ReasonCode::BadUserNameOrPassword);
    assert_eq!(Refusal::NoPassword.reason(Version::V4).connect_return_code(), 5);
    assert_eq!(Refusal::TooOften.reason(Version::V4).connect_return_code(), 3);
}

#[tokio::test]
async fn a_mechanism_says_who_it_is_whatever_else_is_said() {
    let access = Access::new(InForce { passwords: passwords(&[("anna", "one")]), ..in_force(Anonymous::Off) });
    let asked = saying(Some("anna"), None);
    for client in [here(), with_certificate("device-1")] {
        let login = access.admit_as(&client, &asked, &"carl".into(), access.epoch()).unwrap();
        assert_eq!((login.user.as_deref(), access.objection(&login)), (Some("carl"), None));
        access.replace(in_force(Anonymous::Off));
        assert!(access.is_newer_than(&login), "the exchange may have begun before the reload");
        assert_eq!(access.objection(&login), None);
    }
}

#[tokio::test]
async fn a_name_that_nobody_can_check_is_none() {
    let named = saying(Some("anna"), Some("one"));
    assert_eq!(user_of(&Access::new(in_force(Anonymous::Loopback)), &here(), &named).await, Ok(None));
    let access = Access::new(in_force(Anonymous::Off));
    assert_eq!(user_of(&access, &here(), &named).await, Err(Refusal::Unchecked));
    assert_eq!(Refusal::Unchecked.reason(Version::V5), ReasonCode::BadUserNameOrPassword);
}

#[tokio::test]
async fn an_lb_gets_in_and_has_no_rules() {
    let rules = InForce { rules: some_rules("x"), identity: CertificateIdentity::SanUri, ..in_force(Anonymous::Off) };
    let access = Access::new(rules);
    let login = access
        .admit(&Client { is_lb: true, ..with_certificate("lb1") }, &saying(None, None), &Turn::FREE)
        .await
        .unwrap();
    assert_eq!((login.user.as_deref(), access.permits(&login, "c")), (None, None));
    assert!(access.permits_of(None, "c").is_some());
}

fn some_rules(topic: &str) -> Option<Rules> {
    let list = vec![topic.to_owned()];
    let (users, clients, deny) = Default::default();
    Rules::of_entries(&[AclRule { users, clients, publish: list.clone(), subscribe: list, deny }]).unwrap()
}

#[tokio::test]
async fn what_changed_is_objected_to() {
    let before =
        || InForce { passwords: passwords(&[("anna", "one"), ("bob", "two")]), ..in_force(Anonymous::Loopback) };
    let access = Access::new(before());
    let admit = async |client: Client, user, password| {
        access.admit(&client, &saying(user, password), &Turn::FREE).await.unwrap()
    };
    let anna = admit(here(), Some("anna"), Some("one")).await;
    let bob = admit(here(), Some("bob"), Some("two")).await;
    let nobody = admit(here(), None, None).await;
    let device = admit(with_certificate("device-1"), None, None).await;
    let lb = admit(Client { is_lb: true, ..with_certificate("lb1") }, None, None).await;
    let objections = || [&anna, &bob, &nobody, &device, &lb].map(|login| access.objection(login));
    assert_eq!(objections(), [None; 5]);
    assert!(!access.is_newer_than(&anna));

    // bob's password changes, anna goes.
    access.replace(InForce { passwords: passwords(&[("bob", "three")]), ..in_force(Anonymous::Loopback) });
    assert_eq!(objections(), [Some("user gone"), Some("password changed"), None, None, None]);
    assert!(access.is_newer_than(&anna));

    access.replace(InForce { identity: CertificateIdentity::Subject, ..in_force(Anonymous::Off) });
    assert_eq!(objections().map(|objection| objection.is_some()), [true, true, true, true, false]);

    access.replace(InForce { rules: some_rules("x"), ..in_force(Anonymous::On) });
    assert_eq!(objections().map(|objection| objection.is_some()), [true, true, false, false, false]);
    let topic = TopicName::new(Text::new("x").unwrap()).unwrap();
    assert!(access.permits(&device, "c").is_some_and(|permits| permits.may_publish(&topic)));
}
