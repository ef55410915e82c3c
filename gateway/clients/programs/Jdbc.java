import java.sql.*;
public class Jdbc {
	public static void main(String[] a) throws Exception {
		for (String mode : new String[] {"simple", "extended", "extendedForPrepared", "extendedCacheEverything"}) {
			try (Connection c = DriverManager.getConnection("jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/postgres?user=postgres&sslmode=disable&prepareThreshold=2&preferQueryMode=" + mode)) {
				Statement s = c.createStatement();
				s.execute("CREATE TABLE jd (id serial PRIMARY KEY, v text UNIQUE)");
				PreparedStatement p = c.prepareStatement("INSERT INTO jd (v) VALUES (?)", Statement.RETURN_GENERATED_KEYS);
				for (int i = 0; i < 6; i++) { p.setString(1, "v" + i); p.executeUpdate(); ResultSet k = p.getGeneratedKeys(); System.out.println(k.next()); }
				for (int i = 0; i < 5; i++) { p.setString(1, "b" + i); p.addBatch(); }
				System.out.println(java.util.Arrays.toString(p.executeBatch()));
				p.setString(1, "b9"); p.addBatch(); p.setString(1, "v1"); p.addBatch();
				try { p.executeBatch(); } catch (BatchUpdateException e) { System.out.println(e.getSQLState() + " " + java.util.Arrays.toString(e.getUpdateCounts())); }
				c.setAutoCommit(false);
				Statement f = c.createStatement(); f.setFetchSize(2);
				ResultSet r = f.executeQuery("SELECT v FROM jd ORDER BY v");
				while (r.next()) System.out.print(r.getString(1) + " ");
				Savepoint sp = c.setSavepoint();
				try { s.execute("SELECT nosuch"); } catch (SQLException e) { System.out.println(e.getSQLState()); }
				c.rollback(sp); s.execute("DELETE FROM jd WHERE v = 'v0'"); c.commit();
				c.setReadOnly(true);
				try { s.execute("DELETE FROM jd"); } catch (SQLException e) { System.out.println(e.getSQLState()); }
				c.rollback(); c.setReadOnly(false); c.setAutoCommit(true);
				c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE); System.out.println(c.getTransactionIsolation());
				ResultSet m = c.getMetaData().getColumns(null, "public", "jd", "%"); while (m.next()) System.out.println(m.getString("COLUMN_NAME"));
				System.out.println(c.isValid(2));
				s.execute("DROP TABLE jd");
			}
		}
	}
}
