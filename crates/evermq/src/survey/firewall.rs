//! Whether a host's firewall lets through what the cluster needs. Rules can say anything; what is found here is where a chain for
//! what comes in drops by default, and nothing names the port or protocol.

use evermq_config::vip::Adverts;

use super::facts::Facts;
use super::judge::Port;

/// VRRP's number (RFC 9568 §5.1.1.4).
const VRRP: &str = "112";

/// What seems not to get through: subject, message, help.
pub(super) fn judge(
    facts: &Facts,
    ports: &[Port],
    vrrp: bool,
    adverts: Adverts,
) -> Vec<(&'static str, String, String)> {
    let mut found = Vec::new();
    if !facts.lines("firewalld").is_empty() {
        firewalld(facts, ports, vrrp, &mut found);
        return found;
    }
    let nft = Rules { text: facts.lines("nftables"), hook: "hook input", drops: "policy drop" };
    let iptables = Rules { text: facts.lines("iptables"), hook: ":INPUT", drops: ":INPUT DROP" };
    let Some(rules) = [nft, iptables].into_iter().find(Rules::drop_what_comes_in) else { return found };
    if vrrp && !rules.name("vrrp") && !rules.name(VRRP) {
        let to = if adverts == Adverts::Multicast { " and IGMP, for the group 224.0.0.18" } else { "" };
        found.push((
            "firewall",
            "what comes in is dropped unless a rule says otherwise, and none names VRRP, IP protocol 112: both lb hosts would hold the VIP".to_owned(),
            format!("let IP protocol 112{to} in from the other lb hosts: nft add rule inet filter input ip protocol vrrp accept"),
        ));
    }
    for port in ports.iter().filter(|port| port.open && !rules.names_port(port)) {
        found.push((
            "firewall",
            format!(
                "what comes in is dropped unless a rule says otherwise, and none names {} port {} of {}",
                port.protocol, port.number, port.program
            ),
            format!("let it in: nft add rule inet filter input {} dport {} accept", port.protocol, port.number),
        ));
    }
    found
}

fn firewalld(facts: &Facts, ports: &[Port], vrrp: bool, found: &mut Vec<(&'static str, String, String)>) {
    let lines = facts.lines("firewalld");
    if lines.iter().any(|line| line.trim() == "target: ACCEPT") {
        return;
    }
    let words = |key: &str| {
        let of_key = lines.iter().filter_map(|line| line.trim().strip_prefix(key)).collect::<Vec<_>>().join(" ");
        of_key.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let (open, protocols) = (words("ports:"), words("protocols:"));
    let rich =
        lines.iter().any(|line| line.contains("rule ") && (line.contains("vrrp") || line.contains("value=\"112\"")));
    if vrrp && !protocols.iter().any(|word| word == "vrrp" || word == VRRP) && !rich {
        found.push((
            "firewall",
            "firewalld does not let VRRP in, IP protocol 112: both lb hosts would hold the VIP".to_owned(),
            "firewall-cmd --permanent --add-protocol=vrrp && firewall-cmd --reload".to_owned(),
        ));
    }
    for port in ports.iter().filter(|port| port.open) {
        let named = open.iter().any(|word| {
            let Some((range, protocol)) = word.split_once('/') else { return false };
            protocol == port.protocol && in_range(range, port.number)
        });
        if !named {
            found.push((
                "firewall",
                format!("firewalld does not let {} port {} of {} in", port.protocol, port.number, port.program),
                format!(
                    "firewall-cmd --permanent --add-port={}/{} && firewall-cmd --reload",
                    port.number, port.protocol
                ),
            ));
        }
    }
}

/// A set of rules as its tool prints it.
struct Rules<'a> {
    text: &'a [String],
    hook: &'static str,
    drops: &'static str,
}

impl Rules<'_> {
    fn drop_what_comes_in(&self) -> bool {
        self.text.iter().any(|line| line.contains(self.hook) && line.contains(self.drops))
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.text.iter().flat_map(|line| line.split([' ', '\t', ',', '{', '}', '"'])).filter(|word| !word.is_empty())
    }

    fn name(&self, word: &str) -> bool {
        self.words().any(|other| other == word)
    }

    fn names_port(&self, port: &Port) -> bool {
        self.words().any(|word| in_range(word, port.number))
    }
}

/// `9000`, `9000-9010`, `9000:9010`
fn in_range(word: &str, port: u16) -> bool {
    let (first, last) = word.split_once(['-', ':']).unwrap_or((word, word));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => (first..=last).contains(&port),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: [Port; 3] = [
        Port { protocol: "tcp", number: 9000, program: "evermq-lb", open: true },
        Port { protocol: "tcp", number: 9001, program: "evermq-lb", open: true },
        Port { protocol: "tcp", number: 1883, program: "evermq-broker", open: false },
    ];

    fn found(section: &str, lines: &str) -> Vec<String> {
        let facts = Facts::parse(&format!("== {section}\n{lines}\n== end\n")).unwrap();
        judge(&facts, &PORTS, true, Adverts::Unicast).into_iter().map(|(_, message, _)| message).collect()
    }

    #[test]
    fn no_firewall_and_one_that_lets_all_in() {
        assert_eq!(found("nothing", "").len(), 0);
        let accepts = "table inet f {\n chain input {\n  type filter hook input priority 0; policy accept;\n }\n}";
        assert_eq!(found("nftables", accepts).len(), 0);
        assert_eq!(found("iptables", "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT").len(), 0);
        assert_eq!(found("firewalld", "trusted (active)\n  target: ACCEPT\n  ports: ").len(), 0);
    }

    #[test]
    fn what_is_not_named_is_told() {
        let nft = "table inet f {\n chain input {\n  type filter hook input priority 0; policy drop;\n  tcp dport { 22, 9000-9001 } accept\n ip protocol vrrp accept\n }\n}";
        assert_eq!(found("nftables", nft).len(), 0);
        assert_eq!(found("nftables", &nft.replace("ip protocol vrrp accept", "")).len(), 1);
        assert_eq!(found("nftables", &nft.replace("9000-9001", "80")).len(), 2);
        let iptables = "*filter\n:INPUT DROP [0:0]\n-A INPUT -p tcp -m multiport --dports 9000:9001 -j ACCEPT\n-A INPUT -p 112 -j ACCEPT\nCOMMIT";
        assert_eq!(found("iptables", iptables).len(), 0);
        assert_eq!(found("iptables", "*filter\n:INPUT DROP [0:0]\nCOMMIT").len(), 3);
    }

    #[test]
    fn firewalld_names_ports_and_protocols() {
        let text = "public (active)\n  target: default\n  services: ssh\n  ports: 9000-9001/tcp\n  protocols: vrrp";
        assert_eq!(found("firewalld", text).len(), 0);
        let less = found("firewalld", "public (active)\n  target: default\n  ports: 9000/tcp 9001/udp\n  protocols: ");
        assert_eq!(less.len(), 2, "{less:?}");
        assert!(less[0].contains("IP protocol 112") && less[1].contains("tcp port 9001"), "{less:?}");
    }
}
