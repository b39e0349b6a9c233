//! The KV service.

use prost::Message;
use tonic::Status;

use super::{
    convert,
    proto::etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
        RangeRequest, RangeResponse, TxnRequest, TxnResponse,
    },
    service::Shared,
    status::{self, status},
};
use crate::{Op, OpResponse, Revision, Txn};

/// Pairs from which on a read is one of many pairs.
const LARGE: usize = 500;

impl Shared {
    pub(crate) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let request = convert::range(request)?;
        let large = request.range.end.is_some() && !request.count_only && (request.limit == 0 || request.limit > LARGE);
        let answer = if large {
            // Elsewhere, so that the connection's other requests do not wait for it.
            let store = self.store.clone();
            let read = tokio::spawn(async move { store.range(request).await });
            read.await.map_err(|_| Status::internal("the read was stopped"))?
        } else {
            self.store.range(request).await
        };
        let answer = answer.map_err(status)?;
        Ok(convert::range_answer(answer, &|revision| self.header(revision)))
    }

    /// Runs one operation as a txn; its answer and the revision.
    pub(crate) async fn run(&self, op: Op) -> Result<(OpResponse, Revision), Status> {
        let txn = Txn { success: vec![op], ..Txn::default() };
        let mut answer = self.store.txn(txn).await.map_err(status)?;
        let response = answer.responses.pop().ok_or_else(|| Status::internal("an operation had no answer"))?;
        Ok((response, answer.revision))
    }

    pub(crate) async fn put(&self, request: PutRequest) -> Result<PutResponse, Status> {
        let bytes = request.encoded_len();
        let put = convert::put(request)?;
        self.check_size(bytes)?;
        let (answer, revision) = self.run(Op::Put(put)).await?;
        let OpResponse::Put { prev_kv } = answer else { return Err(status::mismatch()) };
        Ok(PutResponse { header: Some(self.header(revision)), prev_kv: prev_kv.map(convert::kv) })
    }

    pub(crate) async fn delete_range(&self, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
        let bytes = request.encoded_len();
        let delete = convert::delete(request)?;
        self.check_size(bytes)?;
        let (answer, revision) = self.run(Op::Delete(delete)).await?;
        let OpResponse::Delete { deleted, prev_kvs } = answer else { return Err(status::mismatch()) };
        Ok(DeleteRangeResponse {
            header: Some(self.header(revision)),
            deleted: convert::signed(deleted),
            prev_kvs: prev_kvs.into_iter().map(convert::kv).collect(),
        })
    }

    pub(crate) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        let bytes = request.encoded_len();
        let txn = convert::txn(request, self.options.max_txn_ops)?;
        // As etcd sees it: a txn inside another may write.
        if !txn.success.iter().chain(&txn.failure).all(|op| matches!(op, Op::Range(_))) {
            self.check_size(bytes)?;
        }
        let answer = self.store.txn(txn).await.map_err(status)?;
        Ok(convert::txn_answer(answer, &|revision| self.header(revision)))
    }

    pub(crate) async fn compact(&self, request: CompactionRequest) -> Result<CompactionResponse, Status> {
        self.store.compact(convert::unsigned(request.revision)).await.map_err(status)?;
        Ok(CompactionResponse { header: Some(self.header_now().await?) })
    }

    /// Refuses a change of too many bytes. etcd measures a request as it goes into its log.
    fn check_size(&self, bytes: usize) -> Result<(), Status> {
        if bytes > self.options.max_request_bytes {
            return Err(status::REQUEST_TOO_LARGE.into());
        }
        Ok(())
    }
}
