/* agreement.pml: who leads, who is in sync, what may be acknowledged (health.Propose, internal/mirror).

   Three members vote and hold data (WITNESS: member 2 votes only.  TWOM: two members, member 0 has the casting vote).  Proposers
   change the view, each with an epoch of its own; clients (distributors serving one transaction each) work under ANY view ever
   chosen, stale or not, so one that slept is included.  Every message may be lost, every process may stop for ever at any
   step, a COMMIT may take effect after its client gave up.

   member   prom  promised epoch = data fence             accE  epoch of the accepted view (its value is vL,vI,vT[accE])
            lead  0, or term+1: role leader in that term  posT  term its position is counted in      lg  its rows (see below)
   view e   vL leader, vI in-sync members, vT TERM = the epoch in which this leader took over, unchanged while it is kept
   lg bits  C(k): transaction k's rows and its token row "committed" (one local transaction, so one bit); A(k): token "aborted"

   Rules: a soft promise (guess g = the leader to be kept) raises the epoch only: open transactions go on, commits need `lead`
   alone.  A hard promise (exclusive fence) also ends the role and the open transactions.  Only a leader that is kept may be
   soft; who does not lead promises hard however it is asked; everyone else in the new in-sync set is hard.  ack(k): [1] k
   committed on L in term T; [2] a batch read on L AFTER the commit shows an epoch whose view was chosen, in the SAME term; [3] every
   in-sync follower of that view has that batch, applied under its own fence = that epoch.  "Rolled back" is told by the same
   three steps, for the row A(k).  A member comes back in two steps: it is brought up to date under the view in force (its tail is
   undone), and a proposer ships the rest after the promises, to a member that is in the term of the kept leader.
   Safety, after each step that matters:
     S1  a member that any majority may elect next (by its accepted views) has every write told "committed", none told "rolled back"
     S3  (in the same assertion) no member positioned in the term of the newest chosen view holds what its leader lacks
     L1  the same as S1 of a leader that takes office by the newest view chosen (an older one may, harmlessly: it cannot ack)
   Each loop round is one atomic step (one message).  -DREV asks the members in the other order.  What is left out:
   leases (leases.pml), lists of members that change, numbers of transactions, pruning.                                   */
#define BIT(i) (1<<(i))
#define C(k) (1<<((k)-1))
#define A(k) (16<<((k)-1))
#define CNT(x) (((x)&1)+(((x)>>1)&1)+(((x)>>2)&1))
#ifndef NP
#define NP 2
#endif
#ifndef NC
#define NC 1
#endif
#if defined(WITNESS) || defined(TWOM)
#define DATA 3
#else
#define DATA 7
#endif
#ifdef TWOM
#define NV 2
#ifdef BUG_CAST_BOTH                         /* two configurations, each with another first member */
#define QUOR(x) ((x)!=0)
#else
#define QUOR(x) ((x)&1)
#endif
#else
#define NV 3
#define QUOR(x) (CNT(x)>=2)
#endif
#ifdef REV
#define FROM (NV-1)
#define MORE (i<NV)
#define NEXT i--
#else
#define FROM 0
#define MORE (i<NV)
#define NEXT i++
#endif
byte prom[3], accE[3], lead[3], posT[3], lg[3];
#ifdef BUG_SOFT_IS_HARD
byte hardE[3];                               /* newest epoch promised under the exclusive fence */
#endif
byte vL[NP+1], vI[NP+1], vT[NP+1], accBy[NP+1];
byte told, undone;                           /* C bits told committed / told rolled back */
byte txL[NC+1], txT[NC+1], txS[NC+1];        /* transaction k: where, term, state 0 none 1 open or commit sent 2 committed 3 dead */
#define CHOSEN(e) QUOR(accBy[e])
#if NP>2
#define LATER(e) (((e)<2 && CHOSEN(2)) || ((e)<3 && CHOSEN(3)))
#else
#define LATER(e) ((e)<2 && CHOSEN(2))
#endif
#define GOOD(i) ((lg[i]&told)==told && (lg[i]&undone)==0)
#define HI(a,b) vI[(accE[a]>=accE[b] -> accE[a] : accE[b])]
#define ONE(a,v) ((((v)>>a)&1)==0 || GOOD(a))
#define PAIR(a,b) (ONE(a,HI(a,b)) && ONE(b,HI(a,b)))
#define EXTRA(e,F) (posT[F]==vT[e] && F!=vL[e] && (lg[F]&(255-lg[vL[e]]))!=0)
#define SAME(e) (lead[vL[e]]!=vT[e]+1 || !(EXTRA(e,0) || EXTRA(e,1) || EXTRA(e,2)))
#if NP>2
#define S3 ((CHOSEN(3) && SAME(3)) || (!CHOSEN(3) && CHOSEN(2) && SAME(2)) || (!CHOSEN(3) && !CHOSEN(2) && CHOSEN(1) && SAME(1)) || (!CHOSEN(3) && !CHOSEN(2) && !CHOSEN(1) && SAME(0)))
#else
#define S3 ((CHOSEN(2) && SAME(2)) || (!CHOSEN(2) && CHOSEN(1) && SAME(1)) || (!CHOSEN(2) && !CHOSEN(1) && SAME(0)))
#endif
#ifdef BUG_CAST_BOTH
#define S1 S3
#else
#ifdef TWOM
#define S1 (ONE(0,vI[accE[0]]) && PAIR(0,1) && S3)
#else
#define S1 (PAIR(0,1) && PAIR(0,2) && PAIR(1,2) && S3)
#endif
#endif

#ifdef BUG_NO_FOLLOWER_FENCE
#define FF(i,e) true
#else
#define FF(i,e) (prom[i]==e)
#endif
#ifdef BUG_ACK_WITHOUT_REREAD
#define LF(i,e) true
#else
#define LF(i,e) (prom[i]==e)
#endif
/* one apply at follower F under view e: batch b of term T.  Position check: a position in T only moves forward, a position of
   another term is re-based (its tail keys and its missed keys are both in the batch: state-based, so F becomes b exactly). */
#define FITS(F,b,T) (posT[F]!=T || (lg[F]&(255-(b)))==0)
#ifdef BUG_TAIL_KEPT                         /* only missed keys are shipped: the tail is not undone */
#define PUT(F,b,T) lg[F]=lg[F]|b; posT[F]=T
#else
#define PUT(F,b,T) lg[F]=b; posT[F]=T
#endif

inline pickview(e) { if :: CHOSEN(0) -> e=0 :: CHOSEN(1) -> e=1 :: CHOSEN(2) -> e=2
#if NP>2
   :: CHOSEN(3) -> e=3
#endif
   fi }
/* [2] and [3]: flush under view e; ok=1 when every in-sync follower has batch b */
inline flush(e) {
  if :: atomic { LF(vL[e],e) && lead[vL[e]]==vT[e]+1 -> b=lg[vL[e]]; ok=1; i=FROM } :: atomic { ok=0; i=NV } fi;
  do :: atomic { ok && MORE -> if :: (vI[e]&BIT(i)) && i!=vL[e] ->
            if
#ifdef BUG_APPLY_NO_LOCK                     /* fence looked at, not held: the apply commits later, whatever was promised since */
               :: atomic { FF(i,e) -> skip }; ok=2
#elif defined(BUG_SOFT_IS_HARD)              /* an apply that is open is ended by a hard promise alone */
               :: atomic { FF(i,e) -> skip }; ok=2
#else
               :: FF(i,e) && FITS(i,b,vT[e]) -> PUT(i,b,vT[e]); assert(S1)
#endif
               :: FF(i,e) && posT[i]==vT[e] && (b&(255-lg[i]))==0 -> skip           /* somebody brought it further already */
               :: ok=0 fi
        :: else fi }
#ifdef BUG_SOFT_IS_HARD
        atomic { if :: ok==2 -> if :: hardE[i]<=e && FITS(i,b,vT[e]) -> PUT(i,b,vT[e]); ok=1; assert(S1) :: else -> ok=0 fi :: else fi; NEXT }
#elif defined(BUG_APPLY_NO_LOCK)
        atomic { if :: ok==2 -> if :: FITS(i,b,vT[e]) -> PUT(i,b,vT[e]); ok=1; assert(S1) :: else -> ok=0 fi :: else fi; NEXT }
#else
        ; atomic { NEXT }
#endif
     :: atomic { else -> i=0; b=0; break } od }

/* the server side of a transaction: it may commit at any time, also after its client has given up on it */
proctype tx(byte k) {
  if :: atomic { txS[k]==1 && lead[txL[k]]==txT[k]+1 && !(lg[txL[k]]&A(k)) -> lg[txL[k]]=lg[txL[k]]|C(k); txS[k]=2; assert(S1) }
#ifdef BUG_PROMISE_NO_LOCK                   /* role looked at in the first statement, no lock held to the end */
     :: atomic { txS[k]==1 && lead[txL[k]]==txT[k]+1 -> txS[k]=4 };
        atomic { !(lg[txL[k]]&A(k)) -> lg[txL[k]]=lg[txL[k]]|C(k); txS[k]=2; assert(S1) }
#endif
     :: atomic { txS[k]==1 -> txS[k]=3 }
  fi }

proctype client(byte k) {
  byte e, i, b, ok, n, T;
  atomic { pickview(e); txL[k]=vL[e]; txT[k]=vT[e]; txS[k]=1; e=0 };
  /* acknowledge, under the first or a refreshed view */
  if :: atomic { txS[k]==2 -> pickview(e);
#ifndef BUG_ACK_OTHER_TERM
          if :: vT[e]==txT[k] :: vT[e]!=txT[k] -> e=99 fi;
#endif
        };
        if :: e!=99 -> flush(e); if :: atomic { ok -> told=told|C(k); assert(S1); goto done } :: atomic { !ok -> e=0 } fi
           :: atomic { e==99 -> e=0 } fi
     :: true fi;
  /* outcome unknown: resolve by token.  The insert waits for an open holder of the token (here: is atomic with its commit). */
  atomic {
#ifdef BUG_RESOLVE_ON_UNCHOSEN
  if :: vI[1] -> e=1 :: vI[2] -> e=2 fi; prom[vL[e]]==e; 
#else
  pickview(e); lead[vL[e]]==vT[e]+1;
#endif
#ifdef BUG_ROLLED_BACK_LEADER_ONLY           /* told as soon as the present leader has the row, which no follower has yet */
  prom[vL[e]]==e && !LATER(e) && !(e==0 && CHOSEN(1));
#endif
  T=vT[e]; i=vL[e];
  if :: lg[i]&C(k) -> n=4
     :: else -> n=5;
#ifndef BUG_RESOLVE_READ_ONLY                /* the bug: looks, but leaves no "aborted" row behind */
        lg[i]=lg[i]|A(k);
#endif
        assert(S1)
  fi;
#if defined(BUG_RESOLVE_ON_UNCHOSEN) || defined(BUG_ROLLED_BACK_NOT_FLUSHED) || defined(BUG_ROLLED_BACK_LEADER_ONLY)
  if :: n==5 -> undone=undone|C(k); assert(S1); goto done :: else fi;
#endif
  i=0; e=0 };
  atomic { pickview(e); vT[e]==T };
  flush(e);
  if :: atomic { ok && n==4 -> told=told|C(k); assert(S1) }
     :: atomic { ok && n==5 -> undone=undone|C(k); assert(S1) }
     :: !ok fi;
done: atomic { e=0; i=0; b=0; ok=0; n=0; T=0 } }

proctype prop(byte e) {
  byte i, got, hard, h, L, T, b, tgt, ok, g;
#ifdef BUG_JOIN_BEFORE_PROMISE
  byte pre; if :: pre=lg[0] :: pre=lg[1] fi;
#endif
  atomic { i=FROM; if :: g=0 :: g=1
#ifndef TWOM
     :: g=2                                  /* g: guess, the leader to keep (of no consequence where it does not lead) */
#endif
     fi };
#ifndef NOJOIN
  /* first it may bring a member up to date that is not in sync, under a view in force */
  if :: atomic { pickview(h); lead[vL[h]]==vT[h]+1 && prom[vL[h]]==h -> b=lg[vL[h]] };
        if :: ok=0 :: ok=1
#ifndef TWOM
           :: ok=2
#endif
        fi;
        atomic { if :: ok!=vL[h] && !(vI[h]&BIT(ok)) && (DATA&BIT(ok)) && prom[ok]<=h -> prom[ok]=h; lead[ok]=0; lg[ok]=b; posT[ok]=vT[h]; assert(S1)
                    :: else fi; b=0; ok=0; h=0 }
     :: true fi;
#endif
  /* promise: soft at g, if it leads; hard elsewhere */
  do :: atomic { MORE -> if :: prom[i]<e -> prom[i]=e; got=got|BIT(i);
#ifdef BUG_SOFT_IS_HARD
                               if :: i!=g -> lead[i]=0; hard=hard|BIT(i); hardE[i]=e :: i==g && lead[i]==0 -> hard=hard|BIT(i) :: else fi;
#else
                               if :: i!=g || lead[i]==0 -> lead[i]=0; hard=hard|BIT(i) :: else fi;
#endif
                               if :: accE[i]>h -> h=accE[i] :: else fi
                            :: skip fi; NEXT }
     :: atomic { else -> i=0; break } od;
  atomic { if :: !QUOR(got) -> goto stop :: else fi;
  /* leader: in the in-sync set of the highest accepted view, among those that promised */
  if :: (got&vI[h]&1) -> L=0 :: (got&vI[h]&2) -> L=1 :: (got&vI[h]&4) -> L=2 :: else -> goto stop fi;
  if :: L==vL[h] -> T=vT[h] :: else -> T=e fi };
  /* whoever is not a kept leader is fenced hard, or left out */
#ifdef BUG_SOFT_FOLLOWER
  hard=got;
#else
  atomic { if :: (got&BIT(g)) && (g!=L || L!=vL[h]) -> if :: prom[g]==e -> lead[g]=0; hard=hard|BIT(g) :: skip fi :: else fi;
           if :: T==e && !(hard&BIT(L)) -> goto stop :: else -> g=0; got=0 fi };
#endif
  atomic { tgt=vI[h]&(hard|BIT(L)); i=FROM;
#ifndef NOSLOW
    do :: MORE -> if :: i!=L && (tgt&BIT(i)) -> tgt=tgt-BIT(i) :: skip fi; NEXT :: else -> break od; i=FROM    /* too slow: excluded */
#endif
  };
  /* joiners: copied from L after L's promise, each under its own fence */
  do :: MORE -> if :: atomic { (DATA&hard&BIT(i)) && !(vI[h]&BIT(i)) -> skip };
                     if :: atomic { prom[L]==e && T!=e -> b=lg[L] };
#ifdef BUG_JOIN_BEFORE_PROMISE
                           b=pre;
#endif
#ifdef BUG_JOIN_OTHER_TERM                   /* what it has of another leader's tail stays */
                           if :: atomic { FF(i,e) -> lg[i]=lg[i]|b; posT[i]=T; tgt=tgt|BIT(i); b=0; assert(S1) } :: b=0 fi
#elif defined(BUG_JOIN_BEFORE_PROMISE)
                           if :: atomic { FF(i,e) -> lg[i]=b; posT[i]=T; tgt=tgt|BIT(i); b=0 } :: b=0 fi
#else
                           if :: atomic { FF(i,e) && posT[i]==T && (lg[i]&(255-b))==0 -> lg[i]=b; tgt=tgt|BIT(i); b=0 } :: b=0 fi
#endif
                        :: true fi
                :: else fi; NEXT
     :: atomic { else -> i=FROM; b=0; break } od;
  atomic { vL[e]=L; vI[e]=tgt; vT[e]=T; h=0; hard=0; tgt=0 };
#ifdef BUG_ROLE_BEFORE_CHOSEN
  if :: atomic { prom[L]==e -> lead[L]=T+1; accBy[e]=7 } :: true -> goto stop fi;
#endif
  do :: atomic { MORE -> if :: prom[i]==e -> accE[i]=e; accBy[e]=accBy[e]|BIT(i); assert(S1) :: skip fi; NEXT }
     :: atomic { else -> i=0; break } od;
  if :: atomic { CHOSEN(e) && prom[L]==e -> lead[L]=T+1; assert(LATER(e) || GOOD(L)) } :: true -> goto stop fi;
#ifdef EQUALISE
  flush(e);                                  /* the in-sync followers at once (a client's flush does the same) */
#endif
stop: atomic { i=0; got=0; hard=0; h=0; L=0; T=0; b=0; tgt=0; ok=0; g=0 } }

init { atomic { vI[0]=DATA; accBy[0]=7; lead[0]=1;
#ifdef START_ALONE                           /* the set has shrunk to its leader before; the others come back by joining */
  vI[0]=1;
#endif
  byte j=1; do :: j<=NP -> run prop(j); j++ :: else -> break od;
  j=1; do :: j<=NC -> run client(j); run tx(j); j++ :: else -> break od; j=0 } }
