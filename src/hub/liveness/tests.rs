//! The plan on virtual time: single nodes, and a hundred at once.

use super::*;

const NODE: NodeId = NodeId(1000);

fn knowing() -> (Liveness, Instant) {
    let (mut liveness, now) = (Liveness::default(), Instant::now());
    liveness.know(&BTreeMap::from([(NODE, Pulse::Asked(SessionParameters::default()))]), now);
    (liveness, now)
}

#[test]
fn a_silent_node_is_asked_early_enough_to_be_flagged_within_a_minute() {
    let (mut liveness, now) = knowing();
    assert!(liveness.contact(NODE, now, Timestamp::UNIX_EPOCH), "the record may say otherwise");
    let due = liveness.next_due(now).unwrap();
    assert!(due > now + Duration::from_secs(10) && due <= now + EVERY);
    assert!(liveness.begin_due(due - Duration::from_millis(1), 0).is_empty());
    assert_eq!(liveness.begin_due(due, 0).len(), 1);
    assert!(liveness.begin_due(due, 1).is_empty() && liveness.next_due(due).is_none(), "it is being asked");
}

#[test]
fn a_silent_node_that_announces_itself_is_asked_every_second() {
    let (mut liveness, now) = knowing();
    liveness.doubt(NODE, now);
    let Question { number, .. } = liveness.begin_due(now, 0)[0];
    assert_eq!(liveness.failed(NODE, number, now, true), Some(1));
    assert_eq!(liveness.next_due(now), Some(now + SOON));
    for _ in 0..100 {
        liveness.failed(NODE, number, now, false);
    }
    assert_eq!(liveness.next_due(now), Some(now + LATEST));
    liveness.doubt(NODE, now);
    assert_eq!(liveness.begin_due(now, 0).len(), 1, "its announcement has it asked at once");
    assert!(liveness.contact(NODE, now, Timestamp::UNIX_EPOCH), "its record says unreachable");
}

#[test]
fn the_record_is_looked_at_rarely() {
    let (mut liveness, now) = knowing();
    assert!(liveness.contact(NODE, now, Timestamp::UNIX_EPOCH));
    assert!(!liveness.contact(NODE, now + EVERY, Timestamp::UNIX_EPOCH));
    assert!(liveness.contact(NODE, now + SAVE_EVERY, Timestamp::UNIX_EPOCH));
    assert_eq!(liveness.last(NODE), Some(Timestamp::UNIX_EPOCH));
}

#[test]
fn nodes_that_are_gone_are_forgotten() {
    let (mut liveness, now) = knowing();
    liveness.know(&BTreeMap::new(), now);
    assert!(!liveness.contact(NODE, now, Timestamp::UNIX_EPOCH) && liveness.next_due(now).is_none());
    assert_eq!(liveness.failed(NODE, 0, now, true), None);
}

#[test]
fn a_node_that_comes_back_elsewhere_need_not_wait_for_the_old_question() {
    let (mut liveness, now) = knowing();
    liveness.doubt(NODE, now);
    let Question { number: old, .. } = liveness.begin_due(now, 0)[0];
    liveness.announced(NODE, now);
    let Question { number: new, .. } = liveness.begin_due(now, 0)[0];
    assert!(liveness.contact(NODE, now, Timestamp::UNIX_EPOCH));
    for overtaken in [old, new] {
        assert_eq!(liveness.failed(NODE, overtaken, now, true), None);
    }
    assert!(liveness.next_due(now).unwrap() > now + SOON);
}

/// What the LAN is like: who is there, and what asking takes. Nodes up to [`KEPT`] have a session that is tried first.
struct Lan {
    liveness: Liveness,
    began: Instant,
    now: Instant,
    there: BTreeMap<NodeId, bool>,
    running: Vec<(Instant, Question)>,
    /// When each was found silent, and when it was found to answer after that.
    flagged: BTreeMap<NodeId, Instant>,
    back: BTreeMap<NodeId, Instant>,
    /// Whether mDNS still remembers those that are gone; else they have said goodbye.
    remembered: bool,
}

const KEPT: u64 = 16;
const READ: Duration = Duration::from_secs(3);
const LOOKUP: Duration = Duration::from_secs(1);
/// A handshake with a device that answers.
const ANSWER: Duration = Duration::from_millis(400);

impl Lan {
    /// Every node was heard of within `spread` before now.
    fn new(nodes: u64, spread: Duration) -> Self {
        let began = Instant::now() + Duration::from_secs(100);
        let mut liveness = Liveness::default();
        let nodes: Vec<NodeId> = (1..=nodes).map(NodeId).collect();
        liveness.know(&nodes.iter().map(|node| (*node, Pulse::Asked(SessionParameters::default()))).collect(), began);
        for (index, node) in nodes.iter().enumerate() {
            let heard = began - spread * u32::try_from(index).unwrap() / u32::try_from(nodes.len()).unwrap();
            liveness.contact(*node, heard, Timestamp::UNIX_EPOCH);
        }
        Self {
            liveness,
            began,
            now: began,
            there: nodes.into_iter().map(|node| (node, true)).collect(),
            running: Vec::new(),
            flagged: BTreeMap::new(),
            back: BTreeMap::new(),
            remembered: true,
        }
    }

    /// Lets time pass, as `probe::watch` does.
    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            for question in self.liveness.begin_due(self.now, self.running.len()) {
                let read = if question.node.0 <= KEPT { READ } else { Duration::ZERO };
                let lookup = if self.remembered { Duration::ZERO } else { LOOKUP };
                let silent = read + lookup + question.patience;
                let takes = if self.there[&question.node] { ANSWER } else { silent };
                self.running.push((self.now + takes, question));
            }
            self.running.sort_by_key(|(at, _)| Reverse(*at));
            let ended = self.running.last().map(|(at, _)| *at);
            let next = ended.into_iter().chain(self.liveness.next_due(self.now)).min().filter(|at| *at <= end);
            let Some(next) = next else { break };
            self.now = next;
            while let Some((_, question)) = self.running.pop_if(|(at, _)| *at <= next) {
                self.answer(question);
            }
        }
        self.now = end;
    }

    fn answer(&mut self, Question { node, number, .. }: Question) {
        if self.there[&node] {
            self.liveness.contact(node, self.now, Timestamp::UNIX_EPOCH);
            if self.flagged.contains_key(&node) {
                self.back.entry(node).or_insert(self.now);
            }
        } else if self.liveness.failed(node, number, self.now, self.remembered).is_some() {
            self.flagged.entry(node).or_insert(self.now);
        }
    }

    /// The power goes, or comes back; what said goodbye is doubted at once.
    fn set(&mut self, nodes: impl Iterator<Item = u64> + Clone, there: bool) {
        if !there && !self.remembered {
            nodes.clone().for_each(|node| self.liveness.doubt(NodeId(node), self.now));
        }
        self.there.extend(nodes.map(|node| (NodeId(node), there)));
    }

    /// As `probe::announced` does: who is asked where it was is asked no longer.
    fn announce(&mut self, node: u64) {
        self.running.retain(|(_, question)| question.node != NodeId(node));
        self.liveness.announced(NodeId(node), self.now);
    }
}

#[test]
fn a_hundred_nodes_that_stop_together_are_flagged_within_a_minute() {
    for (spread, remembered) in [(0, true), (0, false), (10, true), (30, true), (30, false)] {
        let mut lan = Lan::new(150, Duration::from_secs(spread));
        lan.remembered = remembered;
        lan.set(1..=100, false);
        lan.run_for(Duration::from_secs(60));
        assert_eq!(lan.flagged.len(), 100, "within 60 s, of {spread} s");
        // Nor do those that are gone keep the others from being asked.
        lan.set(101..=150, false);
        lan.run_for(Duration::from_secs(60));
        assert_eq!(lan.flagged.len(), 150, "within 60 s, of {spread} s");
    }
}

#[test]
fn who_announces_itself_among_a_hundred_that_are_gone_is_back_within_five_seconds() {
    // While they are found out, and long after.
    for gone in [20, 35, 45, 60, 600] {
        let mut lan = Lan::new(100, Duration::ZERO);
        lan.set(1..=100, false);
        lan.run_for(Duration::from_secs(gone));
        let known: Vec<NodeId> = lan.flagged.keys().copied().collect();
        for node in [3, 50, 99] {
            lan.set(node..=node, true);
            lan.announce(node);
        }
        lan.run_for(Duration::from_secs(5));
        for node in [3, 50, 99].map(NodeId) {
            assert!(!known.contains(&node) || lan.back.contains_key(&node), "{node} after {gone} s");
            assert!(lan.liveness.last(node).is_some());
        }
        // And all the others, when the power is back.
        lan.set(1..=100, true);
        (1..=100).for_each(|node| lan.announce(node));
        lan.run_for(Duration::from_secs(5));
        assert_eq!(lan.back.len(), lan.flagged.len(), "after {gone} s");
    }
}

#[test]
fn a_single_silent_node_has_all_the_patience() {
    let mut lan = Lan::new(100, Duration::from_secs(30));
    lan.set(70..=70, false);
    lan.run_for(Duration::from_secs(60));
    assert_eq!(lan.flagged.keys().collect::<Vec<_>>(), [&NodeId(70)]);
    assert!(lan.flagged[&NodeId(70)] <= lan.began + EVERY + PATIENCE);
    let (mut liveness, now) = knowing();
    liveness.doubt(NODE, now);
    assert_eq!(liveness.begin_due(now, 0)[0].patience, PATIENCE);
}

/// mDNS remembers a device for two minutes, and says nothing new when it is back within them.
#[test]
fn those_that_come_back_unheard_are_found_in_turn() {
    let mut lan = Lan::new(100, Duration::ZERO);
    lan.set(1..=100, false);
    lan.run_for(Duration::from_secs(60));
    lan.set(1..=100, true);
    lan.run_for(Duration::from_secs(15));
    assert_eq!(lan.back.len(), 100);
    // Among others that stay away it takes a round of all.
    let mut lan = Lan::new(100, Duration::ZERO);
    lan.set(1..=100, false);
    lan.run_for(Duration::from_secs(60));
    lan.set(50..=50, true);
    lan.run_for(Duration::from_secs(70));
    assert!(lan.back.contains_key(&NodeId(50)));
}

#[test]
fn a_sleepy_node_is_seldom_woken_and_judged_by_its_own_rhythm() {
    let idle_interval = Duration::from_secs(15);
    let door = SessionParameters { idle_interval, ..SessionParameters::default() };
    let (mut liveness, now) = (Liveness::default(), Instant::now());
    liveness.know(&BTreeMap::from([(NODE, Pulse::Asked(door))]), now);
    liveness.contact(NODE, now, Timestamp::UNIX_EPOCH);
    let due = liveness.next_due(now).unwrap();
    assert!(due > now + Duration::from_secs(14 * 60), "60 of its sleeps, less what spreads the questions");
    assert!(liveness.begin_due(due, 0)[0].sleepy);
    // It is found to be always awake after an update: then it is asked as often as others.
    liveness.know(&BTreeMap::from([(NODE, Pulse::Asked(SessionParameters::default()))]), now);
    liveness.contact(NODE, now, Timestamp::UNIX_EPOCH);
    assert!(liveness.next_due(now).unwrap() <= now + EVERY);
}

#[test]
fn one_that_checks_in_is_never_asked_in_its_sleep_and_is_silent_when_it_is_overdue() {
    let (mut liveness, now) = (Liveness::default(), Instant::now());
    let patience = Duration::from_secs(2 * 3600 + 60);
    liveness.know(&BTreeMap::from([(NODE, Pulse::ChecksIn(patience))]), now);
    assert!(liveness.contact(NODE, now, Timestamp::UNIX_EPOCH));
    for minutes in 0..120 {
        let now = now + Duration::from_secs(60 * minutes);
        liveness.doubt(NODE, now);
        assert!(liveness.begin_due(now, 0).is_empty() && liveness.take_overdue(now).is_empty(), "{minutes}");
    }
    let late = now + patience;
    assert!(!liveness.is_silent(NODE));
    assert_eq!(liveness.take_overdue(late), [(NODE, patience)]);
    assert!(liveness.is_silent(NODE) && liveness.take_overdue(late + patience).is_empty(), "it is said once");
    // Its router announces it, or it does so itself: it is asked then, and that it sleeps on says nothing.
    liveness.announced(NODE, late);
    let Question { number, sleepy, .. } = liveness.begin_due(late, 0)[0];
    assert!(sleepy);
    assert_eq!(liveness.failed(NODE, number, late, true), None);
    assert!(liveness.begin_due(late + patience, 0).is_empty());
    assert!(liveness.contact(NODE, late, Timestamp::UNIX_EPOCH) && !liveness.is_silent(NODE), "it checked in");
    // Where the hub is not registered any more, it is asked by its rhythm again.
    liveness.know(&BTreeMap::from([(NODE, Pulse::Asked(SessionParameters::default()))]), late);
    assert_eq!(liveness.begin_due(late + EVERY, 0).len(), 1);
}
