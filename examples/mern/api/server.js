// Tasks as documents: a table with one column of JSON, as a document store would keep them.
const express = require("express");
const { Pool } = require("pg");

const pool = new Pool({ host: process.env.DATABASE || "database", user: "postgres", database: "postgres" });
pool.on("error", (error) => console.error("database:", error.message));
const app = express();
app.use(express.json({ limit: "10kb" }));

async function prepare() {
  for (;;) {
    try {
      await pool.query(
        "CREATE TABLE IF NOT EXISTS tasks (id bigserial PRIMARY KEY, document jsonb NOT NULL)"
      );
      return;
    } catch (error) {
      console.error("waiting for the database:", error.message);
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  }
}

app.get("/api/tasks", async (_request, response) => {
  const found = await pool.query("SELECT id, document FROM tasks ORDER BY id");
  response.json(found.rows.map((row) => ({ id: Number(row.id), ...row.document })));
});

app.post("/api/tasks", async (request, response) => {
  const document = { title: String(request.body.title || "").slice(0, 200), done: false };
  const made = await pool.query("INSERT INTO tasks (document) VALUES ($1) RETURNING id", [document]);
  response.status(201).json({ id: Number(made.rows[0].id), ...document });
});

app.put("/api/tasks/:id", async (request, response) => {
  const change = { done: Boolean(request.body.done) };
  await pool.query("UPDATE tasks SET document = document || $1 WHERE id = $2", [change, Number(request.params.id)]);
  response.sendStatus(204);
});

app.use(express.static("public"));

prepare().then(() => {
  const server = app.listen(process.env.PORT || 8000, () => console.log("ready"));
  process.on("SIGTERM", () => server.close(() => process.exit(0)));
});
