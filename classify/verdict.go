package classify

// Verdict is what [Parse] found out about a string of statements. It is shared
// and must not be changed.
type Verdict struct {
	// Class is the strongest of the statements' classes; Read for an empty string.
	Class Class
	// Because is the reason for Class, as a clause: "locks rows (FOR UPDATE)".
	Because string
	// Hint is what a leading comment asks for.
	Hint Hint
	// BadHint is the text after "pgdist:" in a leading comment that is no hint,
	// to be reported to the client. Empty otherwise.
	BadHint string
	// Statements has one entry for each statement. A string that the grammar
	// refuses has a single one, of class Unknown.
	Statements []Statement

	// literal: something here was derived from a literal, so the verdict holds
	// for this very text only.
	literal bool
}

// Statement is the verdict on one statement.
type Statement struct {
	Class   Class
	Because string
	// Tag is the command tag without counts: "SELECT", "ALTER TABLE". Empty
	// for class Unknown.
	Tag string
	// Start and End are byte offsets into the string if it holds several
	// statements. A statement alone in its string has 0 and -1, because one
	// verdict serves all texts that differ in literals only. Use [Statement.Text].
	Start, End int

	// Pin and Unpin are what the session holds from here on, and what it
	// certainly does no longer (DISCARD ALL, UNLISTEN *, …).
	Pin, Unpin Pin
	// NoTx: the server refuses the statement in a transaction block.
	NoTx bool
	// Sequences: the statement names nextval or setval, or runs code that is not
	// known here, so any sequence may have moved. Sequences behind column
	// defaults do not show in the text and are not meant.
	Sequences bool
	// Catalog: system catalogs, information_schema, system columns, OIDs or
	// transaction ids are read; members differ in them.
	Catalog bool
	// Temp: a temporary object is named as such; nothing of it is mirrored.
	Temp bool
	// Newer: the grammar refuses the statement, which begins like one of its class. What
	// it reads, changes and calls is not told.
	Newer bool

	// Tx, Set, Prepared, Cursor, Copy and Explain are nil unless the statement is
	// of their kind. Set is the first of Sets.
	Tx       *TxStmt
	Set      *SetStmt
	Sets     []SetStmt
	Prepared *PreparedStmt
	Cursor   *CursorStmt
	Copy     *CopyStmt
	Explain  *ExplainStmt
	// Channel is that of LISTEN, UNLISTEN and NOTIFY as the server has it: folded to lower case
	// unless quoted, cut to 63 bytes. Empty for UNLISTEN *.
	Channel string
	// Refusal is set for class Refused, and only then.
	Refusal *Refusal

	// Functions are the functions called that are not PostgreSQL's own. Only the
	// catalog can judge them: see Resolve.
	Functions []FuncRef
	// Database is the database that a definition names (ALTER DATABASE, ALTER
	// ROLE … IN DATABASE, GRANT and COMMENT ON DATABASE), or several; empty if it names none.
	Database string
	// Relations are the tables that the statement names as its target: those of
	// DDL, TRUNCATE, LOCK, DML, COPY FROM and maintenance, and those which DDL
	// locks besides (a referenced table, a partition's parent). Names of views
	// and indexes where the syntax cannot tell them from tables.
	Relations []RelRef
	// Shut are those of Relations that DDL or TRUNCATE shuts readers out of: it takes
	// ACCESS EXCLUSIVE of them (docs, "Explicit Locking" and "ALTER TABLE").
	Shut []RelRef
	// Reads are the relations that a query names in FROM, COPY … TO or the like,
	// the names of its WITH clauses included.
	Reads []RelRef

	// base and baseBecause hold if none of Functions is volatile.
	base        Class
	baseBecause string
}

// FuncRef names a function or an aggregate as the statement does; Schema is
// empty if it does not say.
type FuncRef struct{ Schema, Name string }

// RelRef names a relation as the statement does; Schema is empty if it does not say.
type RelRef struct{ Schema, Name string }

// TxKind is the kind of a transaction control statement.
type TxKind uint8

const (
	// TxBegin is BEGIN and START TRANSACTION.
	TxBegin TxKind = iota + 1
	// TxCommit is COMMIT and END.
	TxCommit
	// TxRollback is ROLLBACK and ABORT.
	TxRollback
	TxSavepoint
	TxRollbackTo
	TxRelease
	// TxSetTransaction is SET TRANSACTION, and SET of transaction_isolation,
	// transaction_read_only and transaction_deferrable.
	TxSetTransaction
	// TxSetCharacteristics is SET SESSION CHARACTERISTICS AS TRANSACTION; its
	// class is Session.
	TxSetCharacteristics
	// TxPrepare, TxCommitPrepared and TxRollbackPrepared are refused.
	TxPrepare
	TxCommitPrepared
	TxRollbackPrepared
)

// TxStmt describes a transaction control statement.
type TxStmt struct {
	Kind TxKind
	// Isolation is "serializable", "repeatable read", "read committed" or "read
	// uncommitted"; empty if the statement does not say. "default" is SET
	// transaction_isolation TO DEFAULT.
	Isolation string
	// ReadOnly and Deferrable are nil if the statement does not say.
	ReadOnly, Deferrable *bool
	// Chain: COMMIT or ROLLBACK … AND CHAIN.
	Chain bool
	// Savepoint is the name in SAVEPOINT, ROLLBACK TO and RELEASE.
	Savepoint string
	// Snapshot is the identifier in SET TRANSACTION SNAPSHOT.
	Snapshot string
}

// SetKind is the kind of a statement that changes settings.
type SetKind uint8

const (
	// SetSession is SET and SET SESSION.
	SetSession SetKind = iota + 1
	// SetLocal is SET LOCAL.
	SetLocal
	// SetReset is RESET name and SET name TO DEFAULT.
	SetReset
	SetResetAll
	SetDiscardAll
	// SetDiscard is DISCARD of something other than ALL; Name says what:
	// "plans", "sequences" or "temp".
	SetDiscard
	// SetConfig is a call of set_config that runs exactly once.
	SetConfig
	// SetShow is SHOW; Name is "all" for SHOW ALL. Its class is that of a read.
	SetShow
)

// SetStmt describes one change of a setting.
type SetStmt struct {
	Kind SetKind
	// Name is the parameter's name in lower case: "timezone" for SET TIME ZONE,
	// "client_encoding" for SET NAMES, "search_path" for SET SCHEMA, "role",
	// "session_authorization".
	Name string
	// Value is the value as set_config takes it: search_path as a list of quoted
	// identifiers. Empty for SetReset and if Default or Opaque.
	Value string
	// Local: SET LOCAL, or set_config with a true third argument.
	Local bool
	// Default: SET … TO DEFAULT, which a SetLocal may say too.
	Default bool
	// Opaque: the value has no text form known here (SET TIME ZONE INTERVAL …):
	// run the statement itself.
	Opaque bool
	// NameParam, ValueParam and LocalParam are the numbers of the parameters ($1
	// is 1) that give what set_config is told, 0 where a literal does.
	NameParam, ValueParam, LocalParam int
}

// PreparedKind is the kind of a statement about SQL-level prepared statements.
type PreparedKind uint8

const (
	Prepare PreparedKind = iota + 1
	Execute
	// Deallocate has an empty name for DEALLOCATE ALL.
	Deallocate
)

// PreparedStmt describes PREPARE, EXECUTE and DEALLOCATE.
type PreparedStmt struct {
	Kind PreparedKind
	Name string
	// Inner is the verdict on what PREPARE prepares. Its class, resolved, is that
	// of every later EXECUTE of the name; the EXECUTE itself says Write.
	Inner *Statement
}

// CursorKind is the kind of a cursor statement.
type CursorKind uint8

const (
	CursorDeclare CursorKind = iota + 1
	CursorFetch
	CursorMove
	// CursorClose has an empty name for CLOSE ALL.
	CursorClose
)

// CursorStmt describes DECLARE, FETCH, MOVE and CLOSE. FETCH, MOVE and CLOSE
// are reads that have to run where the cursor was declared.
type CursorStmt struct {
	Kind CursorKind
	Name string
	// Hold: DECLARE … WITH HOLD.
	Hold bool
}

// CopyStmt describes COPY.
type CopyStmt struct {
	// From: COPY … FROM; otherwise COPY … TO.
	From bool
	// Server: the data is in a file of the leader's or goes through a PROGRAM
	// there; otherwise it travels over the connection.
	Server bool
	// Query: COPY (query) TO.
	Query bool
}

// ExplainStmt describes EXPLAIN.
type ExplainStmt struct {
	// Analyze: the statement is run.
	Analyze bool
}

// Volatility judges functions that are not PostgreSQL's own, from the catalog.
// It must be safe for concurrent use and must not block.
type Volatility interface {
	// Volatile returns whether any overload of the function is volatile, or may
	// be; schema is empty if the statement does not say. known is false if there
	// is no such function.
	Volatile(schema, name string) (volatile, known bool)
}

// Resolve returns the class of the whole string, given what the catalog says
// about its functions. A nil vol knows none of them.
func (v *Verdict) Resolve(vol Volatility) Class {
	if len(v.Statements) == 0 {
		return v.Class
	}
	c := Read
	for i := range v.Statements {
		sc, _ := v.Statements[i].Resolve(vol)
		c = c.Stronger(sc)
	}
	return c
}

// Resolve returns the statement's class, given what the catalog says about its
// functions, and the reason for it. A function that the catalog does not know
// keeps the statement a write: it may just have been created.
func (s *Statement) Resolve(vol Volatility) (Class, string) {
	if s.Class == s.base || vol == nil {
		return s.Class, s.Because
	}
	for _, f := range s.Functions {
		if volatile, known := vol.Volatile(f.Schema, f.Name); volatile || !known {
			return s.Class, s.Because
		}
	}
	return s.base, s.baseBecause
}

// Text returns the statement's text within sql, the string that was judged,
// without space around it and without its semicolon.
func (s *Statement) Text(sql string) string {
	if s.End >= 0 {
		return sql[s.Start:s.End]
	}
	return trimStatement(sql)
}
