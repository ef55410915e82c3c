import sqlalchemy as sa, os
e = sa.create_engine("postgresql+psycopg2://", pool_size=2)
m = sa.MetaData()
t = sa.Table("sa_t", m, sa.Column("id", sa.Integer, primary_key=True), sa.Column("v", sa.String(20), index=True), sa.Column("n", sa.Numeric))
m.create_all(e)
with e.begin() as c:
    print(c.execute(t.insert().values(v="a").returning(t.c.id)).fetchall() is not None)
    c.execute(t.insert(), [{"v": "b", "n": 1}, {"v": "c", "n": 2}])
    print(c.execute(sa.select(t.c.v, t.c.n).order_by(t.c.v)).fetchall())
try:
    with e.begin() as c:
        with c.begin_nested():
            c.execute(t.insert().values(v="d"))
        c.execute(sa.text("SELECT nosuch"))
except sa.exc.ProgrammingError as x:
    print(x.orig.pgcode)
i = sa.inspect(e)
print([c["name"] for c in i.get_columns("sa_t")], i.get_pk_constraint("sa_t"), i.get_indexes("sa_t"))
with e.connect() as c:
    print(c.execute(sa.select(sa.func.count()).select_from(t)).scalar())
m.drop_all(e)
