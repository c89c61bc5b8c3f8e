//! Writes that wait for the disk together: those in the queue share one commit, and none is answered before it.
//!
//! A commit is as slow as the disk's flush (milliseconds on a hub's flash), whatever is in it. Each write has a savepoint of
//! its own, so that one that fails takes nothing of the others along. Not here: the queue, and who may go next (`store`).

use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::{Failure, store_error};
use crate::durable::StoreError;

/// Writes in one commit; more would make the first wait for the last.
const MOST: usize = 64;

/// A write that waits for its turn, its commit, and its answer, in this order.
pub(super) trait Write: Send {
    /// Does the work inside `tx`.
    ///
    /// # Errors
    /// The work failed: nothing of it may stay.
    fn run(&mut self, tx: &Transaction<'_>) -> Result<(), StoreError>;
    /// Tells the caller; `committed` is what became of the transaction.
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

/// The one [`Write`] there is: `work`, what it returned, and where that goes. `then` runs after the commit, whatever came
/// of it and whether or not the caller still waits.
pub(super) struct Waiting<T, W, N> {
    work: Option<W>,
    result: Result<T, StoreError>,
    then: N,
    caller: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, W, N> Waiting<T, W, N>
where
    W: FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    N: FnOnce(),
{
    pub(super) fn new(work: W, then: N, caller: oneshot::Sender<Result<T, StoreError>>) -> Self {
        Self { work: Some(work), result: Err(StoreError::Closed), then, caller }
    }
}

impl<T, W, N> Write for Waiting<T, W, N>
where
    T: Send,
    W: FnOnce(&Transaction<'_>) -> Result<T, Failure> + Send,
    N: FnOnce() + Send,
{
    fn run(&mut self, tx: &Transaction<'_>) -> Result<(), StoreError> {
        if let Some(work) = self.work.take() {
            self.result = work(tx).map_err(|Failure(error)| error);
        }
        self.result.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        (self.then)();
        let result = match (self.work, committed) {
            // Its own failure says more than what that did to the others.
            (None, Err(error)) => self.result.and(Err(error)),
            (Some(_), Err(error)) => Err(error),
            (_, Ok(())) => self.result,
        };
        // The caller may have stopped waiting; the write counts all the same.
        let _ = self.caller.send(result);
    }
}

/// Commits `first` and what `next` gives, then answers them in their order.
pub(super) fn commit(connection: &mut Connection, first: Box<dyn Write>, next: impl FnMut() -> Option<Box<dyn Write>>) {
    let mut writes = vec![first];
    let committed = transaction(connection, &mut writes, next);
    for write in writes {
        write.answer(committed.clone());
    }
}

fn transaction(
    connection: &mut Connection,
    writes: &mut Vec<Box<dyn Write>>,
    mut next: impl FnMut() -> Option<Box<dyn Write>>,
) -> Result<(), StoreError> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store_error)?;
    while let Some(write) = writes.last_mut() {
        step(&tx, "SAVEPOINT one")?;
        let result = write.run(&tx);
        if tx.is_autocommit() {
            // On some failures (a full disk) SQLite ends the whole transaction, and all of it is gone.
            return Err(result.err().unwrap_or(StoreError::Failed("SQLite ended the transaction".to_owned())));
        }
        if result.is_err() {
            step(&tx, "ROLLBACK TO one")?;
        }
        step(&tx, "RELEASE one")?;
        if writes.len() == MOST {
            break;
        }
        match next() {
            Some(write) => writes.push(write),
            None => break,
        }
    }
    tx.commit().map_err(store_error)
}

fn step(tx: &Transaction<'_>, sql: &str) -> Result<(), StoreError> {
    tx.prepare_cached(sql).and_then(|mut statement| statement.execute([])).map(drop).map_err(store_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, filling BLOB)").unwrap();
        connection
    }

    fn numbers(connection: &Connection) -> Vec<i64> {
        let mut statement = connection.prepare("SELECT n FROM t ORDER BY n").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    type Answer = oneshot::Receiver<Result<usize, StoreError>>;

    /// Inserts each of `numbers`; a number twice is a failure after the first was inserted.
    fn insert(numbers: &'static [i64]) -> (Box<dyn Write>, Answer) {
        let (caller, answer) = oneshot::channel();
        let work = move |tx: &Transaction<'_>| {
            for number in numbers {
                tx.execute("INSERT INTO t (n) VALUES (?1)", [number])?;
            }
            Ok(numbers.len())
        };
        (Box::new(Waiting::new(work, || {}, caller)), answer)
    }

    fn play(connection: &mut Connection, all: &[&'static [i64]]) -> Vec<Result<usize, StoreError>> {
        let (writes, answers): (Vec<_>, Vec<_>) = all.iter().map(|numbers| insert(numbers)).unzip();
        let mut writes = writes.into_iter();
        let first = writes.next().unwrap();
        commit(connection, first, || writes.next());
        answers.into_iter().map(|mut answer: Answer| answer.try_recv().unwrap()).collect()
    }

    #[test]
    fn one_that_fails_takes_nothing_of_the_others_along() {
        let mut connection = database();
        let answers = play(&mut connection, &[&[1, 2], &[3, 3], &[4]]);
        assert!(matches!(answers.as_slice(), [Ok(2), Err(StoreError::Failed(_)), Ok(1)]), "{answers:?}");
        assert_eq!(numbers(&connection), [1, 2, 4]);
    }

    #[test]
    fn nothing_is_answered_before_the_commit() {
        let mut connection = database();
        let ((first, mut answer), (second, _)) = (insert(&[1]), insert(&[2]));
        let mut second = Some(second);
        commit(&mut connection, first, || {
            assert!(answer.try_recv().is_err(), "not on disk yet");
            second.take()
        });
        assert!(matches!(answer.try_recv(), Ok(Ok(1))));
    }

    /// On a full disk SQLite ends the transaction: who was in it must not be told that it is on disk.
    #[test]
    fn a_full_disk_refuses_all_who_share_it_and_nobody_after() {
        let mut connection = database();
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
        let ((first, mut one), (last, mut three)) = (insert(&[1]), insert(&[3]));
        let (caller, mut two) = oneshot::channel();
        let fill = |tx: &Transaction<'_>| Ok(tx.execute("INSERT INTO t VALUES (2, zeroblob(1000000))", [])?);
        let mut rest = vec![last, Box::new(Waiting::new(fill, || {}, caller)) as Box<dyn Write>];
        commit(&mut connection, first, || rest.pop());
        assert!(matches!(one.try_recv(), Ok(Err(StoreError::DiskFull))));
        assert!(matches!(two.try_recv(), Ok(Err(StoreError::DiskFull))));
        assert_eq!(numbers(&connection), [] as [i64; 0]);

        commit(&mut connection, rest.pop().unwrap(), || None);
        assert!(matches!(three.try_recv(), Ok(Ok(1))));
        assert_eq!(numbers(&connection), [3]);
    }
}
