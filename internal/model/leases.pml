/* leases.pml: who may still read, and who must wait for them (health/lease.go).

   Three members vote.  The view of epoch 1 has all of them in sync, that of epoch 2 leaves member 2 out.  A reader R has its view
   confirmed by majorities again and again, and reads while its lease lasts; a member that does not have it on its list
   puts it there, which counts from the next time on.  A proposer X puts itself on the lists of a majority and has epoch 2
   chosen; an adopter Y, which comes at any time, goes by it once it is chosen.  Both acknowledge a write under it, each after its own
   drain.  All of them stop for any time at any step; messages are lost.  One tick of the clock is one for all.

   A lease is L ticks from before it was asked for, or, for who believed to be alone and was told that it is, 2L: what the members
   who confirm have written down.
   Safety: nobody begins a read by the view of epoch 1 (of member 2, that is) once a write was acknowledged without it.
   Two runs: X acknowledges, or, with -DADOPTER, Y does.  Every rule has a -DBUG_ switch that breaks it: see README.md.                                                          */
#define BIT(i) (1<<(i))
#define MAJ(x) ((x)==3 || (x)==5 || (x)==6 || (x)==7)
#define L 2
byte prom=0, acc=0;                  /* who has promised, and accepted, epoch 2 */
byte on=0, new=0;                    /* who has R on its list, and who knows it to go by epoch 2 */
byte dbl=0;                          /* who has a double lease of R written down */
byte othX=0, othY=0;                 /* who has X, and Y, on its list */
bit acks;                            /* a write was acknowledged without member 2 */
bit two;                             /* R goes by epoch 2 */
byte grant, asked;                   /* ticks that R's lease lasts, and that the one asked for would */
bit others;                          /* R believes that there is somebody else */
byte waitX=99, waitY=99;             /* ticks since X, Y went by epoch 2; 99: not yet */
#define SAFE (!(acks && grant>0 && !two))

active proctype clock() {
  do :: atomic { grant=(grant>0 -> grant-1 : 0); asked=(asked>0 -> asked-1 : 0);
       if :: waitX<=2*L -> waitX++ :: else fi; if :: waitY<=2*L -> waitY++ :: else fi } od }

/* the reader */
active proctype R() {
  byte i, yes; bit u, seen, late;
  do
  :: atomic { u=!others; asked=(u -> 2*L : L) };                                        /* before anything is sent */
     do
     :: atomic { i<3 ->
          if :: skip                                                                     /* no answer */
             :: true -> if :: (othX|othY)&BIT(i) -> seen=1 :: else fi;
#ifdef BUG_UNKNOWN_CONFIRMED
                if :: (prom&BIT(i))==(two -> BIT(i) : 0) && (acc&BIT(i))==(two -> BIT(i) : 0) -> yes=yes|BIT(i) :: else fi;
#else
                if :: (on&BIT(i)) && (prom&BIT(i))==(two -> BIT(i) : 0) && (acc&BIT(i))==(two -> BIT(i) : 0) -> yes=yes|BIT(i) :: else fi;
                on=on|BIT(i);
#endif
                if :: on&BIT(i) -> if :: two -> new=new|BIT(i) :: else fi; dbl=(u -> dbl|BIT(i) : dbl&(7-BIT(i))) :: else fi
          fi; i++ }
     :: i==3 -> break
     od;
     if
#ifdef BUG_ONE_CONFIRMS
     :: atomic { yes!=0 ->
#else
     :: atomic { MAJ(yes) ->
#endif
#ifdef BUG_LEASE_FROM_ANSWER
          asked=(u -> 2*L : L);
#endif
          if :: seen && u -> asked=(asked>L -> asked-L : 0) :: else fi;                  /* not alone: one lease, of the two */
#ifdef BUG_LEASE_LATE
          if :: grant>asked -> others=seen; late=1 :: else -> grant=asked; others=seen fi; assert(SAFE) };
        if :: atomic { late -> if :: i=1 :: i=2 :: i=4 fi; dbl=dbl&(7-i) }                /* somebody who is asked late writes the shorter one down */
           :: atomic { !late -> skip } fi;
        if :: atomic { late -> grant=asked; late=0; assert(SAFE) } :: atomic { !late -> skip } fi
#else
          grant=asked; others=seen; assert(SAFE) }
#endif
     :: atomic { else -> if :: !two && MAJ(acc) -> two=1; grant=0 :: skip fi }           /* it may hear of the newer view */
     fi;
     atomic { i=0; yes=0; u=0; seen=0; asked=0 }
  od }

/* what whoever acknowledges does first: waits until nobody can read by epoch 1 any more */
inline drain(w) {
  do
  :: if :: atomic { got=3 } :: atomic { got=5 } :: atomic { got=6 } fi;                  /* a majority confirms epoch 2 */
     if
     :: atomic { (acc&got)==got && ((on&got)==0 || (new&on&got)!=0) -> got=0; break }
#ifdef BUG_STRUCK_OFF_AT_ONCE
     :: atomic { (acc&got)==got && (on&got)!=0 && (new&on&got)==0 ->
#else
     :: atomic { (acc&got)==got && (on&got)!=0 && (new&on&got)==0 && w<99 && w>((dbl&on&got) -> 2*L : L) ->
#endif
          if :: got=3 :: got=5 :: got=6 fi; on=on&(7-(got&(7-new))); got=0; break }      /* it is struck off a majority's lists */
     :: atomic { got!=0 -> got=0 }
     fi
  od }

active proctype X() {
  byte got; bit lag;
  atomic { if :: othX=3 :: othX=5 :: othX=6 fi };
#ifdef BUG_WAIT_FROM_PROMISE
  waitX=0;
#endif
  /* members 0 and 1 promise and accept: any other two are the same, for nothing else tells them apart */
  atomic { prom=1; lag=(on|othY)&1 }; atomic { prom=3; lag=lag|(((on|othY)&2)!=0) };
  atomic { acc=1 }; atomic { acc=3 };
  atomic { if :: waitX==99 -> waitX=0 :: else fi };
#ifdef ADOPTER
  if :: atomic { prom=7; acc=7 } :: skip fi; goto end;                                   /* the third hears of it, or not */
#endif
#ifndef BUG_NO_DRAIN
  if :: !lag -> skip                                                                     /* nobody else was on the lists: settled */
     :: else -> drain(waitX)
  fi;
#endif
  atomic { acks=1; assert(SAFE) };
end: skip }

/* another distributor, which adopts epoch 2 */
#ifdef ADOPTER
active proctype Y() {
  byte got;
  atomic { if :: othY=3 :: othY=5 :: othY=6 fi };
  atomic { MAJ(acc) -> waitY=0 };
#ifndef BUG_ONLY_PROPOSERS_WAIT
  drain(waitY);
#endif
  atomic { acks=1; assert(SAFE) } }
#endif
