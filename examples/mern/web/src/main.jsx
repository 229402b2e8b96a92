import { useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

function send(method, path, body) {
  return fetch(path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

function Tasks() {
  const [tasks, setTasks] = useState([]);
  const [title, setTitle] = useState("");
  const load = () => fetch("/api/tasks").then((answer) => answer.json()).then(setTasks);
  useEffect(() => { load(); }, []);

  async function add(event) {
    event.preventDefault();
    if (title.trim()) await send("POST", "/api/tasks", { title });
    setTitle("");
    load();
  }

  async function toggle(task) {
    await send("PUT", `/api/tasks/${task.id}`, { done: !task.done });
    load();
  }

  return (
    <main>
      <h1>Tasks</h1>
      <form onSubmit={add}>
        <input value={title} onChange={(event) => setTitle(event.target.value)} placeholder="What next?" />
        <button>Add</button>
      </form>
      <ul>
        {tasks.map((task) => (
          <li key={task.id}>
            <label>
              <input type="checkbox" checked={task.done} onChange={() => toggle(task)} />
              {task.title}
            </label>
          </li>
        ))}
      </ul>
    </main>
  );
}

createRoot(document.getElementById("root")).render(<Tasks />);
