//! Asking at the terminal for what has no default value.

use std::io::{BufRead, Write};
use std::net::{IpAddr, Ipv4Addr};

use evermq_config::{ClusterName, HostName};

use super::site::{Site, USUAL_PORT};
use super::{InitError, host};

/// Whom to ask.
pub struct Ask<R, W> {
    /// Where answers come from, a line each.
    pub input: R,
    /// Where questions go.
    pub output: W,
}

impl<R: BufRead, W: Write> Ask<R, W> {
    /// Asks for what is missing of a site.
    ///
    /// # Errors
    /// The answers end before the questions do.
    pub fn site(&mut self, mut site: Site, no_vip: bool, ask_name: bool, ask_port: bool) -> Result<Site, InitError> {
        if ask_name {
            let usual = site.name.as_str().to_owned();
            site.name = self.ask("The cluster's name", Some(&usual), |text| {
                ClusterName::new(text).ok_or_else(|| "1 to 63 letters, digits and hyphens".to_owned())
            })?;
        }
        self.say("The hosts, as NAME=ADDRESS; NAME is what `hostname -s` prints there. An empty line ends each list.");
        for (name, address) in self.hosts("Load balancer")? {
            site.add(&name, address, true, false)?;
        }
        self.say("The brokers; a load balancer may be one too.");
        for (name, address) in self.hosts("Broker")? {
            site.add(&name, address, false, true)?;
        }
        if site.vip.is_none() && !no_vip {
            site.vip = self.ask(
                "The VIP, an address that no host has (none: a cloud's load balancer is before the hosts)",
                None,
                |text| match text {
                    "none" => Ok(None),
                    text => {
                        text.parse::<IpAddr>().map(Some).map_err(|_| "an address, such as 192.168.10.10".to_owned())
                    }
                },
            )?;
        }
        if ask_port {
            let usual = USUAL_PORT.to_string();
            site.port = self.ask("The port that clients connect to", Some(&usual), |text| {
                text.parse().ok().filter(|port| *port != 0).ok_or_else(|| "a port, 1 to 65535".to_owned())
            })?;
        }
        Ok(site)
    }

    fn hosts(&mut self, what: &str) -> Result<Vec<(HostName, Ipv4Addr)>, InitError> {
        let mut hosts = Vec::new();
        loop {
            let question = format!("{what} {}", hosts.len() + 1);
            let done = hosts.is_empty();
            match self.ask(
                &question,
                None,
                |text| if text.is_empty() && !done { Ok(None) } else { host(text).map(Some) },
            )? {
                Some(host) => hosts.push(host),
                None => return Ok(hosts),
            }
        }
    }

    /// Asks until the answer is one.
    fn ask<T>(
        &mut self,
        question: &str,
        usual: Option<&str>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, InitError> {
        loop {
            let usual_text = usual.map_or_else(String::new, |usual| format!(" [{usual}]"));
            let _ = write!(self.output, "{question}{usual_text}: ");
            let _ = self.output.flush();
            let mut line = String::new();
            match self.input.read_line(&mut line) {
                Ok(0) | Err(_) => return Err(InitError::Unanswered),
                Ok(_) => {}
            }
            let answer = match (line.trim(), usual) {
                ("", Some(usual)) => usual,
                (answer, _) => answer,
            };
            match parse(answer) {
                Ok(value) => return Ok(value),
                Err(wanted) => self.say(&format!("  {wanted}")),
            }
        }
    }

    fn say(&mut self, text: &str) {
        let _ = writeln!(self.output, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(answers: &str) -> (Result<Site, InitError>, String) {
        let site =
            Site { name: ClusterName::new("mqtt").unwrap(), vip: None, port: 9000, interface: None, hosts: Vec::new() };
        let mut output = Vec::new();
        let site = Ask { input: answers.as_bytes(), output: &mut output }.site(site, false, true, true);
        (site, String::from_utf8(output).unwrap())
    }

    #[test]
    fn a_few_answers_are_a_site() {
        let (site, asked) = answered("plant-7\n\nlb1\nlb1=10.0.0.1\nlb2 = 10.0.0.2\n\nb1=10.0.0.3\n\n10.0.0.9\n\n");
        let site = site.unwrap();
        assert_eq!(site.name.as_str(), "plant-7");
        assert_eq!(site.hosts.len(), 3);
        assert_eq!((site.vip, site.port), (Some("10.0.0.9".parse().unwrap()), 9000));
        assert_eq!(asked.matches("write NAME=ADDRESS").count(), 2, "{asked}");
        assert_eq!(asked.matches("Load balancer 1: ").count(), 3, "{asked}");
    }

    #[test]
    fn without_a_vip_and_without_an_end() {
        let (site, _) = answered("\nlb1=10.0.0.1\n\nlb1=10.0.0.1\n\nnone\n1234\n");
        let site = site.unwrap();
        assert_eq!((site.vip, site.port, site.name.as_str()), (None, 1234, "mqtt"));
        assert!(site.hosts[0].lb && site.hosts[0].broker);
        assert!(matches!(answered("x\nlb1=10.0.0.1\n").0, Err(InitError::Unanswered)));
    }
}
