//go:build unix

package compat

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"
)

// openGorm opens GORM over an existing *sql.DB, as its documentation says.
func openGorm(t *testing.T, db *sql.DB, config gorm.Config) *gorm.DB {
	t.Helper()
	config.Logger = logger.Discard
	g, err := gorm.Open(postgres.New(postgres.Config{Conn: db}), &config)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// gorms runs body with GORM's ways of talking to a database.
func gorms(t *testing.T, body func(t *testing.T, g *gorm.DB, db *sql.DB, note note)) {
	for name, config := range map[string]gorm.Config{
		"plain":    {},
		"prepared": {PrepareStmt: true, SkipDefaultTransaction: true, TranslateError: true},
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, db *sql.DB, note note) { body(t, openGorm(t, db, config), db, note) })
		})
	}
}

var tablesOfModels = []any{&company{}, &language{}, &user{}, &pet{}, &account{}, &event{}}

func migrated(t *testing.T, g *gorm.DB) {
	t.Helper()
	if err := g.AutoMigrate(tablesOfModels...); err != nil {
		t.Fatal(err)
	}
}

func ptr[T any](v T) *T { return &v }

// fill makes users with all kinds of associations.
func fill(g *gorm.DB) error {
	users := []user{
		{Name: "ada", Age: 36, Mail: ptr("ada@example.org"), Company: &company{Name: "Engine"}, Pets: []pet{{Name: "rex", Data: []byte{0, 255}}, {Name: "tom"}},
			Account: account{Number: "NL01"}, Languages: []language{{Code: "en"}, {Code: "nl"}}},
		{Name: "bob", Age: 20, Account: account{Number: "NL02"}, Birthday: sql.NullTime{Time: time.Date(2000, 2, 29, 0, 0, 0, 0, time.UTC), Valid: true}},
		{Name: "cyd", Age: 77, Pets: []pet{{Name: "kit"}}, Account: account{Number: "NL03"}},
	}
	return g.Create(&users).Error
}

func TestGormMigrations(t *testing.T) {
	gorms(t, func(t *testing.T, g *gorm.DB, db *sql.DB, note note) {
		note("first %s", told(g.AutoMigrate(tablesOfModels...)))
		note("%s", schema(t, db))
		note("fill %s", told(fill(g)))
		note("same again %s", told(g.AutoMigrate(tablesOfModels...)))
		note("second %s", told(g.AutoMigrate(&company2{}, &user2{}, &note2{}, &pet2{})))
		note("%s", schema(t, db))
		note("%s", table(t, db, "SELECT id, name, country FROM companies ORDER BY id"))
		note("%s", table(t, db, "SELECT id, name, age, mail, rate, seen IS NULL FROM users ORDER BY id"))
		m := g.Migrator()
		note("rename %s", told(m.RenameColumn(&pet2{}, "parent", "mother")))
		note("index %v %s", m.HasIndex(&user2{}, "idx_name_age"), told(m.DropIndex(&user2{}, "idx_name_age")))
		note("column %v %s", m.HasColumn(&user2{}, "mail"), told(m.DropColumn(&user2{}, "mail")))
		note("constraint %v %s", m.HasConstraint(&user2{}, "age_positive"), told(m.DropConstraint(&user2{}, "age_positive")))
		note("alter %s", told(m.AlterColumn(&company2{}, "Country")))
		note("rename table %s", told(m.RenameTable("notes", "remarks")))
		types, err := m.ColumnTypes(&pet2{})
		for _, c := range types {
			nullable, _ := c.Nullable()
			def, has := c.DefaultValue()
			length, hasLength := c.Length()
			note("%s %s %v %q %v %d %v", c.Name(), c.DatabaseTypeName(), nullable, def, has, length, hasLength)
		}
		note("types %s", told(err))
		list, err := m.GetTables()
		note("tables %d %s", len(list), told(err))
		note("drop %s", told(m.DropTable("remarks", &account{})))
		note("%s", schema(t, db))
	})
}

func TestGormCRUD(t *testing.T) {
	gorms(t, func(t *testing.T, g *gorm.DB, db *sql.DB, note note) {
		migrated(t, g)
		note("fill %s", told(fill(g)))
		note("hook %v", errors.Is(g.Create(&user{}).Error, errNameless))
		gormReads(g, note)
		gormUpdates(g, note)
		gormUpserts(g, note)
		gormDeletes(g, note)
		for _, q := range []string{"SELECT id, name, age, mail, rate, company_id, deleted_at IS NULL FROM users ORDER BY id", "SELECT id, name, data FROM pets ORDER BY id",
			"SELECT * FROM accounts ORDER BY id", "SELECT * FROM companies ORDER BY id", "SELECT kind, body FROM events ORDER BY body::text", "SELECT * FROM user_languages ORDER BY 1, 2"} {
			note("%s", table(t, db, q))
		}
	})
}

func gormReads(g *gorm.DB, note note) {
	var u user
	note("first %s %s %s", told(g.Preload("Pets", func(tx *gorm.DB) *gorm.DB { return tx.Order("pets.name") }).Preload(clause.Associations).First(&u, "name = ?", "ada").Error), u.Name, u.Log)
	note("%d pets, %s, %s, %d languages", len(u.Pets), u.Company.Name, u.Account.Number, len(u.Languages))
	note("none %v", errors.Is(g.First(&u, "name = ?", "nobody").Error, gorm.ErrRecordNotFound))
	var names []string
	note("pluck %s %v", told(g.Model(&user{}).Where("age > ?", 18).Or("mail IS NULL").Order("age DESC").Pluck("name", &names).Error), names)
	var joined []user
	note("joins %s", told(g.Joins("Company").Joins("Account").Where(map[string]any{"users.name": []string{"ada", "bob"}}).Order("users.id").Find(&joined).Error))
	for _, u := range joined {
		note("%s %v %s", u.Name, u.Company != nil, u.Account.Number)
	}
	var groups []struct {
		Initial string
		N       int
		Total   float64
	}
	note("group %s %v", told(g.Model(&user{}).Select("left(name, 1) AS initial, count(*) AS n, sum(rate) AS total").Group("initial").Having("count(*) > ?", 0).Order("initial").Scan(&groups).Error), groups)
	rows, err := g.Model(&user{}).Order("id").Rows()
	if err != nil {
		note("rows %s", told(err))
		return
	}
	for rows.Next() {
		var each user
		note("row %s %s", told(g.ScanRows(rows, &each)), each.Name)
	}
	note("rows %s", told(errors.Join(rows.Err(), rows.Close())))
	var batch []user
	note("batches %s", told(g.Order("id").FindInBatches(&batch, 2, func(_ *gorm.DB, n int) error { note("batch %d %d", n, len(batch)); return nil }).Error))
	var n int64
	sub := g.Model(&user{}).Select("avg(age)")
	note("subquery %s %d", told(g.Model(&user{}).Where("age > (?)", sub).Count(&n).Error), n)
	note("raw %s %d", told(g.Raw("SELECT sum(age) FROM users WHERE name LIKE @p", sql.Named("p", "%")).Scan(&n).Error), n)
	note("for update %s", told(g.Clauses(clause.Locking{Strength: "UPDATE", Options: "SKIP LOCKED"}).Find(&batch).Error))
}

func gormUpdates(g *gorm.DB, note note) {
	var u user
	note("%s", told(g.Where("name = ?", "bob").Take(&u).Error))
	u.Age = 21
	note("save %s", told(g.Save(&u).Error))
	r := g.Model(&user{}).Where("age > ?", 30).Updates(map[string]any{"rate": gorm.Expr("rate * ?", 2), "mail": "m"})
	note("updates %d %s", r.RowsAffected, told(r.Error))
	note("column %s", told(g.Model(&u).UpdateColumn("mail", nil).Error))
	r = g.Model(&user{}).Where("1 = 1").Update("age", -1)
	note("check %d %s", r.RowsAffected, told(r.Error))
	var changed []user
	r = g.Model(&changed).Clauses(clause.Returning{Columns: []clause.Column{{Name: "name"}, {Name: "rate"}}}).Where("age > ?", 70).Update("age", gorm.Expr("age + 1"))
	note("returning %d %s", r.RowsAffected, told(r.Error))
	for _, u := range changed {
		note("%s %v", u.Name, u.Rate)
	}
	note("no where %v", errors.Is(g.Model(&user{}).Update("age", 1).Error, gorm.ErrMissingWhereClause))
	note("append %s", told(g.Model(&u).Association("Languages").Append(&language{Code: "de"}, &language{Code: "fr"})))
	note("replace %s", told(g.Model(&u).Association("Pets").Replace(&pet{Name: "new"})))
	note("count %d", g.Model(&u).Association("Languages").Count())
	note("clear %s", told(g.Model(&u).Association("Languages").Clear()))
	var c company
	note("attrs %s", told(g.Where(company{Name: "Mill"}).FirstOrCreate(&c).Error))
	note("belongs %s", told(g.Model(&u).Association("Company").Append(&c)))
}

func gormUpserts(g *gorm.DB, note note) {
	note("nothing %s", told(g.Clauses(clause.OnConflict{DoNothing: true}).Create(&[]company{{Name: "Engine"}, {Name: "Loom"}}).Error))
	note("update %s", told(g.Clauses(clause.OnConflict{Columns: []clause.Column{{Name: "user_id"}}, DoUpdates: clause.AssignmentColumns([]string{"number"})}).
		Create(&[]account{{UserID: 1, Number: "NL11"}, {UserID: 2, Number: "NL12"}}).Error))
	note("all %s", told(g.Clauses(clause.OnConflict{UpdateAll: true}).Create(&pet{ID: 1, UserID: 1, Name: "rex II"}).Error))
	note("duplicate %s %v", told(g.Create(&company{Name: "Engine"}).Error), errors.Is(g.Create(&company{Name: "Engine"}).Error, gorm.ErrDuplicatedKey))
	note("foreign key %s", told(g.Create(&pet{UserID: 12345}).Error))
	many := make([]pet, 250)
	for i := range many {
		many[i] = pet{UserID: uint(i%3 + 1), Name: fmt.Sprint("p", i)}
	}
	r := g.CreateInBatches(&many, 100)
	note("batches %d %s %v", r.RowsAffected, told(r.Error), many[249].ID > many[0].ID)
	note("map %s", told(g.Model(&company{}).Create([]map[string]any{{"Name": "A"}, {"Name": clause.Expr{SQL: "upper(?)", Vars: []any{"b"}}}}).Error))
}

func gormDeletes(g *gorm.DB, note note) {
	r := g.Where("name = ?", "cyd").Delete(&user{})
	note("soft %d %s", r.RowsAffected, told(r.Error))
	var n, all int64
	g.Model(&user{}).Count(&n)
	g.Unscoped().Model(&user{}).Count(&all)
	note("left %d of %d", n, all)
	r = g.Where("name LIKE ?", "p1%").Delete(&pet{})
	note("hard %d %s", r.RowsAffected, told(r.Error))
	note("select %s", told(g.Select("Languages").Delete(&user{Model: gorm.Model{ID: 1}}).Error))
	r = g.Unscoped().Exec("DELETE FROM accounts WHERE user_id IN (?)", []int{1, 3})
	note("exec %d %s", r.RowsAffected, told(r.Error))
}

func TestGormTransactions(t *testing.T) {
	gorms(t, func(t *testing.T, g *gorm.DB, db *sql.DB, note note) {
		migrated(t, g)
		boom := errors.New("boom")
		note("commit %s", told(g.Transaction(func(tx *gorm.DB) error { return tx.Create(&company{Name: "one"}).Error })))
		note("rollback %s", told(g.Transaction(func(tx *gorm.DB) error { return errors.Join(tx.Create(&company{Name: "two"}).Error, boom) })))
		note("nested %s", told(g.Transaction(func(tx *gorm.DB) error {
			note("outer %s", told(tx.Create(&company{Name: "three"}).Error))
			note("inner %s", told(tx.Transaction(func(tx2 *gorm.DB) error { return errors.Join(tx2.Create(&company{Name: "four"}).Error, boom) })))
			note("inner duplicate %v", tx.Transaction(func(tx2 *gorm.DB) error { return tx2.Create(&company{Name: "one"}).Error }) != nil)
			note("inner good %s", told(tx.Transaction(func(tx2 *gorm.DB) error { return tx2.Create(&company{Name: "five"}).Error })))
			return nil
		})))
		tx := g.Begin(&sql.TxOptions{Isolation: sql.LevelRepeatableRead})
		note("begin %s", told(tx.Error))
		note("save point %s", told(tx.SavePoint("sp").Error))
		note("create %s", told(tx.Create(&company{Name: "six"}).Error))
		note("back %s", told(tx.RollbackTo("sp").Error))
		note("create %s", told(tx.Create(&company{Name: "seven"}).Error))
		note("commit %s", told(tx.Commit().Error))
		func() {
			defer func() { note("panic %v", recover()) }()
			_ = g.Transaction(func(tx *gorm.DB) error { tx.Create(&company{Name: "eight"}); panic("p") })
		}()
		ctx, cancel := context.WithCancel(context.Background())
		err := g.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
			err := tx.Create(&company{Name: "nine"}).Error
			cancel()
			return err
		})
		note("cancelled %v", errors.Is(err, context.Canceled) || errors.Is(err, sql.ErrTxDone))
		note("connection %s", told(g.Connection(func(tx *gorm.DB) error {
			tx.Exec("SET search_path = pg_temp, public")
			var path string
			err := tx.Raw("SHOW search_path").Scan(&path).Error
			note("%s", path)
			return errors.Join(err, tx.Exec("RESET search_path").Error)
		})))
		note("%s", table(t, db, "SELECT name FROM companies ORDER BY id"))
	})
}
