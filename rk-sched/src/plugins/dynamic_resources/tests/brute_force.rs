//! The search against all ways to give devices, on small random instances.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

use super::{DRIVER, Lab, Outcome};

/// A device in the naive model.
struct Device {
    model: usize,
    numa: i64,
    /// Capacity of a device that is shared, in units.
    shared: Option<i64>,
    /// What it consumes of the counter.
    units: i64,
    taken: bool,
}

/// A way to satisfy a request.
#[derive(Clone)]
struct Choice {
    model: Option<usize>,
    /// `None` for all.
    count: Option<usize>,
    admin: bool,
    wish: i64,
}

struct Instance {
    devices: Vec<Device>,
    counter: i64,
    /// By claim.
    claims: Vec<Claim>,
}

struct Claim {
    requests: Vec<Vec<Choice>>,
    /// Whether NUMA nodes have to be the same (`Some(false)`) or to differ (`Some(true)`).
    constraint: Option<bool>,
}

const MODELS: [&str; 2] = ["a", "b"];

impl Instance {
    fn random(random: &mut StdRng) -> Self {
        let device = |random: &mut StdRng| {
            let shared = random.random_bool(0.3).then(|| random.random_range(1..5));
            Device {
                model: random.random_range(0..2),
                numa: random.random_range(0..2),
                units: random.random_range(0..3),
                taken: shared.is_none() && random.random_bool(0.2),
                shared,
            }
        };
        let devices: Vec<Device> = (0..random.random_range(1..5)).map(|_| device(random)).collect();
        let choice = |random: &mut StdRng, alternative: bool| Choice {
            model: random.random_bool(0.5).then(|| random.random_range(0..2)),
            count: (!random.random_bool(0.2)).then(|| random.random_range(1..3)),
            admin: !alternative && random.random_bool(0.15),
            wish: random.random_range(1..4),
        };
        let request = |random: &mut StdRng| match random.random_range(1..3) {
            1 => vec![choice(random, false)],
            more => (0..more).map(|_| choice(random, true)).collect(),
        };
        let claim = |random: &mut StdRng, most: usize| Claim {
            requests: (0..random.random_range(1..=most)).map(|_| request(random)).collect(),
            constraint: random.random_bool(0.4).then(|| random.random_bool(0.5)),
        };
        let mut claims = vec![claim(random, 2)];
        if random.random_bool(0.5) {
            claims.push(claim(random, 1));
        }
        // What is taken was there to be taken.
        let taken = devices.iter().filter(|device| device.taken).map(|device| device.units).sum();
        Self { counter: random.random_range(0..6).max(taken), devices, claims }
    }

    fn selected(&self, choice: &Choice, device: usize) -> bool {
        choice.model.is_none_or(|model| model == self.devices[device].model)
    }

    /// The devices that a choice of all means: those that are selected, and large enough.
    fn all_of(&self, choice: &Choice) -> Vec<usize> {
        let enough = |at: &usize| self.devices[*at].shared.is_none_or(|all| choice.wish <= all);
        (0..self.devices.len()).filter(|at| self.selected(choice, *at)).filter(enough).collect()
    }

    /// Whether what was given to all requests (claim, choice, devices) is right as a whole.
    fn holds(&self, given: &[(usize, Choice, Vec<usize>)]) -> bool {
        let (mut exclusive, mut shares, mut counted) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut per_claim: BTreeMap<(usize, usize), (usize, usize)> = BTreeMap::new();
        for (at, device) in self.devices.iter().enumerate() {
            if device.taken {
                exclusive.insert(at, 1);
                counted.insert(at, device.units);
            }
        }
        for (claim, choice, devices) in given {
            for at in devices {
                let device = &self.devices[*at];
                if !self.selected(choice, *at) || (device.shared.is_none() && choice.wish > 4) {
                    return false;
                }
                let of_claim = per_claim.entry((*claim, *at)).or_default();
                if choice.admin {
                    of_claim.0 += 1;
                    if device.shared.is_some_and(|all| choice.wish > all) {
                        return false;
                    }
                    continue;
                }
                of_claim.1 += 1;
                counted.insert(*at, device.units);
                match device.shared {
                    Some(_) => *shares.entry(*at).or_insert(0) += choice.wish,
                    None => *exclusive.entry(*at).or_insert(0) += 1,
                }
            }
        }
        let shared = |at: usize| self.devices[at].shared.is_some();
        exclusive.values().all(|uses| *uses <= 1)
            && shares.iter().all(|(at, used)| self.devices[*at].shared.is_some_and(|all| *used <= all))
            && counted.values().sum::<i64>() <= self.counter
            && per_claim.iter().all(|((_, at), (admin, own))| match (*admin, *own) {
                (0, own) => own <= 1 || shared(*at),
                (1, 0) => true,
                _ => false,
            })
            && self.claims.iter().enumerate().all(|(number, claim)| {
                let of_claim = given.iter().filter(|(claim, _, _)| *claim == number);
                let numas: Vec<i64> = of_claim.flat_map(|(_, _, d)| d).map(|at| self.devices[*at].numa).collect();
                match claim.constraint {
                    None => true,
                    Some(false) => numas.windows(2).all(|two| two[0] == two[1]),
                    Some(true) => (1..numas.len()).all(|at| !numas[..at].contains(&numas[at])),
                }
            })
    }

    /// Whether there is any way at all: tries every one, and judges it only when it is whole.
    fn solvable(&self, given: &mut Vec<(usize, Choice, Vec<usize>)>) -> bool {
        let mut all =
            self.claims.iter().enumerate().flat_map(|(at, claim)| claim.requests.iter().map(move |r| (at, r)));
        let Some((claim, choices)) = all.nth(given.len()) else { return self.holds(given) };
        choices.iter().any(|choice| {
            let mut ways: Vec<Vec<usize>> = vec![Vec::new()];
            match choice.count {
                None => {
                    ways = vec![self.all_of(choice)];
                    ways.retain(|way| !way.is_empty());
                }
                Some(count) => {
                    for _ in 0..count {
                        let longer = ways.iter().flat_map(|way| {
                            (0..self.devices.len()).map(|at| way.iter().copied().chain([at]).collect::<Vec<_>>())
                        });
                        ways = longer.collect();
                    }
                }
            }
            ways.into_iter().any(|way| {
                given.push((claim, choice.clone(), way));
                let solved = self.solvable(given);
                given.pop();
                solved
            })
        })
    }

    /// The same for the search, and what the search answers, in the naive model's terms.
    fn search(&self) -> Option<Vec<(usize, Choice, Vec<usize>)>> {
        let mut lab = Lab::new();
        let pool = json!({"name": "p", "generation": 1, "resourceSliceCount": 2});
        let counters = json!([{"name": "s", "counters": {"units": {"value": self.counter.to_string()}}}]);
        lab.slice("n", json!({"pool": pool, "sharedCounters": counters}));
        let device = |(at, device): (usize, &Device)| {
            let capacity = device.shared.unwrap_or(4);
            json!({
                "name": at.to_string(), "allowMultipleAllocations": device.shared.is_some(),
                "attributes": {"model": {"string": MODELS[device.model]}, "numa": {"int": device.numa}},
                "capacity": {"size": {"value": capacity.to_string()}},
                "consumesCounters": [{"counterSet": "s", "counters": {"units": {"value": device.units.to_string()}}}],
            })
        };
        let devices: Vec<Value> = self.devices.iter().enumerate().map(device).collect();
        lab.slice("n", json!({"pool": pool, "devices": devices}));
        for (at, _) in self.devices.iter().enumerate().filter(|(_, device)| device.taken) {
            let holder = lab.claim(&format!("holder-{at}"), json!({}));
            let result = json!({"request": "r", "driver": DRIVER, "pool": "p", "device": at.to_string()});
            lab.allocate(&holder, serde_json::from_value(json!({"devices": {"results": [result]}})).unwrap());
        }
        let choice = |choice: &Choice| {
            let expression = choice.model.map_or("true".to_owned(), |model| {
                format!("device.attributes['{DRIVER}'].model == '{}'", MODELS[model])
            });
            let mut made = json!({
                "deviceClassName": "any", "selectors": [{"cel": {"expression": expression}}],
                "allocationMode": if choice.count.is_some() { "ExactCount" } else { "All" },
                "capacity": {"requests": {"size": choice.wish.to_string()}},
            });
            if let Some(count) = choice.count {
                made["count"] = count.into();
            }
            made
        };
        let mut claims = Vec::new();
        for (number, claim) in self.claims.iter().enumerate() {
            let request = |(at, choices): (usize, &Vec<Choice>)| {
                let name = format!("r{at}");
                if let [one] = &choices[..] {
                    let mut exactly = choice(one);
                    exactly["adminAccess"] = one.admin.into();
                    return json!({"name": name, "exactly": exactly});
                }
                let named = |(at, of): (usize, &Choice)| {
                    let mut sub = choice(of);
                    sub["name"] = format!("s{at}").into();
                    sub
                };
                let all: Vec<Value> = choices.iter().enumerate().map(named).collect();
                json!({"name": name, "firstAvailable": all})
            };
            let requests: Vec<Value> = claim.requests.iter().enumerate().map(request).collect();
            let constraints = claim.constraint.map(|distinct| {
                json!([{if distinct { "distinctAttribute" } else { "matchAttribute" }: format!("{DRIVER}/numa")}])
            });
            claims.push(lab.claim(&format!("c{number}"), json!({"requests": requests, "constraints": constraints})));
        }
        let Outcome::Allocated(found) = lab.search(&claims, "n").unwrap() else { return None };
        let mut given: Vec<(usize, Choice, Vec<usize>)> = Vec::new();
        for (number, (claim, allocation)) in self.claims.iter().zip(&found).enumerate() {
            let results = allocation.devices.as_ref().and_then(|devices| devices.results.clone()).unwrap_or_default();
            for (at, choices) in claim.requests.iter().enumerate() {
                let name = format!("r{at}");
                let own = results.iter().filter(|r| r.request.split('/').next() == Some(&name));
                let own: Vec<_> = own.collect();
                let sub = own[0].request.split_once("/s").map_or(0, |(_, sub)| sub.parse().unwrap());
                let devices = own.iter().map(|result| result.device.parse().unwrap()).collect();
                given.push((number, choices[sub].clone(), devices));
            }
        }
        Some(given)
    }
}

#[test]
fn the_search_finds_a_solution_where_there_is_one() {
    let (mut solved, mut refused) = (0, 0);
    for seed in 0..1000 {
        let instance = Instance::random(&mut StdRng::seed_from_u64(seed));
        let found = instance.search();
        assert_eq!(found.is_some(), instance.solvable(&mut Vec::new()), "seed {seed}");
        match found {
            Some(given) => {
                solved += 1;
                assert!(instance.holds(&given), "seed {seed}");
                for (_, choice, devices) in &given {
                    let all = instance.all_of(choice).len();
                    assert_eq!(devices.len(), choice.count.unwrap_or(all), "seed {seed}");
                }
            }
            None => refused += 1,
        }
    }
    // Neither kind is rare.
    assert!(solved > 200 && refused > 200, "{solved} solved, {refused} refused");
}
