package classify

import (
	"strings"

	pg "github.com/pganalyze/pg_query_go/v5"
)

var refusePrepared = &Refusal{
	Feature: "prepared transactions",
	Message: "two-phase commit is not supported: a prepared transaction belongs to one server",
	Hint:    "Use COMMIT. pgdist tells definitely whether a transaction was committed.",
}

// transaction judges BEGIN, COMMIT and their kin.
func (j *judge) transaction(t *pg.TransactionStmt) {
	tx := &TxStmt{Chain: t.Chain, Savepoint: t.SavepointName}
	j.st.Tx = tx
	j.raise(Transaction, "controls the transaction")
	switch t.Kind {
	case pg.TransactionStmtKind_TRANS_STMT_BEGIN:
		tx.Kind = TxBegin
		j.tag("BEGIN")
	case pg.TransactionStmtKind_TRANS_STMT_START:
		tx.Kind = TxBegin
		j.tag("START TRANSACTION")
	case pg.TransactionStmtKind_TRANS_STMT_COMMIT:
		tx.Kind = TxCommit
		j.tag("COMMIT")
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK:
		tx.Kind = TxRollback
		j.tag("ROLLBACK")
	case pg.TransactionStmtKind_TRANS_STMT_SAVEPOINT:
		tx.Kind = TxSavepoint
		j.tag("SAVEPOINT")
	case pg.TransactionStmtKind_TRANS_STMT_RELEASE:
		tx.Kind = TxRelease
		j.tag("RELEASE")
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_TO:
		tx.Kind = TxRollbackTo
		j.tag("ROLLBACK")
	default:
		j.twoPhase(t.Kind, tx)
	}
	tx.options(t.Options)
}

// twoPhase refuses what two-phase commit consists of.
func (j *judge) twoPhase(kind pg.TransactionStmtKind, tx *TxStmt) {
	switch kind {
	case pg.TransactionStmtKind_TRANS_STMT_COMMIT_PREPARED:
		tx.Kind = TxCommitPrepared
		j.tag("COMMIT PREPARED")
	case pg.TransactionStmtKind_TRANS_STMT_ROLLBACK_PREPARED:
		tx.Kind = TxRollbackPrepared
		j.tag("ROLLBACK PREPARED")
	default:
		tx.Kind = TxPrepare
		j.tag("PREPARE TRANSACTION")
	}
	j.refuse(refusePrepared)
}

// setTransaction judges SET TRANSACTION and SET SESSION CHARACTERISTICS.
func (j *judge) setTransaction(v *pg.VariableSetStmt) {
	tx := &TxStmt{Kind: TxSetTransaction}
	j.st.Tx = tx
	switch v.Name {
	case "SESSION CHARACTERISTICS":
		tx.Kind = TxSetCharacteristics
		j.raise(Session, "sets the characteristics of later transactions")
	case "TRANSACTION SNAPSHOT":
		j.raise(Transaction, "takes a snapshot that one server exported")
		if len(v.Args) > 0 {
			tx.Snapshot, _, _ = constText(v.Args[0].GetAConst())
		}
		return
	default:
		j.raise(Transaction, "sets the transaction's characteristics")
	}
	tx.options(v.Args)
}

// options reads ISOLATION LEVEL, READ ONLY and DEFERRABLE. Later ones count.
func (tx *TxStmt) options(opts []*pg.Node) {
	for _, o := range opts {
		d := o.GetDefElem()
		tx.option(d.GetDefname(), d.GetArg().GetAConst())
	}
}

func (tx *TxStmt) option(name string, value *pg.A_Const) {
	if value == nil {
		return
	}
	text, _, ok := constText(value)
	if !ok {
		return
	}
	switch name {
	case "transaction_isolation":
		tx.Isolation = strings.ToLower(text)
	case "transaction_read_only":
		if b, ok := parseBool(text); ok {
			tx.ReadOnly = &b
		}
	case "transaction_deferrable":
		if b, ok := parseBool(text); ok {
			tx.Deferrable = &b
		}
	}
}

// transactionOf returns what SET of a transaction_… parameter does to the
// transaction, nil for other parameters.
func transactionOf(s *SetStmt) *TxStmt {
	switch s.Name {
	case "transaction_isolation", "transaction_read_only", "transaction_deferrable":
	default:
		return nil
	}
	tx := &TxStmt{Kind: TxSetTransaction}
	if !s.Default && !s.Opaque {
		tx.option(s.Name, &pg.A_Const{Val: &pg.A_Const_Sval{Sval: &pg.String{Sval: s.Value}}})
	}
	return tx
}
